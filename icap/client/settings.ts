import { type IcapLimits, limitsFrom } from "../codec/limits.ts";
import type { HeaderFields } from "../codec/serialize.ts";
import { PROFILE_NAMES, type Profile, pathOf, profileOf } from "../profiles.ts";
import { Credentials } from "./credentials.ts";
import { checkFields } from "./fields.ts";
import type { PoolRules } from "./pool.ts";
import { type Target, parseTarget } from "./target.ts";
import type { IcapMethod, IcapServiceOptions, IcapTimeouts } from "./types.ts";

const DEFAULT_TIMEOUTS: IcapTimeouts = { connect: 5_000, write: 30_000, answer: 120_000, idle: 30_000, total: Infinity };
const DEFAULT_CONNECTIONS = 16;
const DEFAULT_RESERVED = 1;
const DEFAULT_WAITING = 256;
/** What a Node.js timer can hold. */
const MAX_TIMEOUT = 2 ** 31 - 1;
const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;

/** A service's options, checked and complete. */
export interface Settings {
  readonly target: Target;
  readonly profile: Profile;
  readonly method: IcapMethod;
  readonly blockedBy: readonly string[];
  readonly preview: "never" | "required" | "trusted";
  readonly trustsLists: boolean;
  readonly credentials: Credentials | undefined;
  readonly fields: HeaderFields;
  readonly pool: PoolRules;
  readonly timeouts: IcapTimeouts;
  readonly limits: IcapLimits;
}

/** @throws TypeError for an option that is out of its range or contradicts the profile, or for a URL that is none. */
export function settingsFrom(options: IcapServiceOptions): Settings {
  const timeouts = { ...DEFAULT_TIMEOUTS, ...options.timeouts };
  for (const [name, ms] of Object.entries(timeouts)) {
    if (name !== "total" || ms !== Infinity) checkInteger(`timeouts.${name}`, ms, 1, MAX_TIMEOUT);
  }
  const { maxConnections = DEFAULT_CONNECTIONS, reservedConnections = DEFAULT_RESERVED, maxWaiting = DEFAULT_WAITING } = options;
  checkInteger("maxConnections", maxConnections, 1, 65_535);
  checkInteger("reservedConnections", reservedConnections, 0, 65_535);
  checkInteger("maxWaiting", maxWaiting, 0, 1_000_000);
  const { profile: profileName = "auto", blockedBy = [], credentials } = options;
  if (!PROFILE_NAMES.includes(profileName)) throw new TypeError(`profile must be one of ${PROFILE_NAMES.join(", ")}`);
  const profile = profileOf(profileName);
  if (!blockedBy.every((name) => TOKEN.test(name))) throw new TypeError("blockedBy must hold names of header fields");
  const { fields = [] } = options;
  checkFields(fields);
  for (const [name, value] of fields) {
    if (!/^[\x20-\x7e]*$/.test(value)) throw new TypeError(`the value of the field ${name} must be printable ASCII`);
  }
  const { method = profile.method, preview = "never" } = options;
  // It would acquit every file by its first bytes.
  if (profile.blindPreview && preview !== "never")
    throw new TypeError(`preview must be never: ${profile.product} acquits whatever is previewed`);
  return {
    target: parseTarget(options.url, pathOf(profile, method)),
    profile,
    method,
    blockedBy,
    preview,
    trustsLists: options.transferLists === "trusted",
    fields,
    credentials: credentials === undefined ? undefined : new Credentials(credentials),
    pool: {
      maxConnections,
      reservedConnections,
      maxWaiting,
      connectTimeout: timeouts.connect,
      idleTimeout: timeouts.idle,
      tls: options.tls,
    },
    timeouts,
    limits: limitsFrom(options.limits),
  };
}

function checkInteger(name: string, value: number, min: number, max: number): void {
  if (!Number.isSafeInteger(value) || value < min || value > max) throw new TypeError(`${name} must be an integer from ${min} to ${max}`);
}
