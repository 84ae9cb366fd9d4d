/** What an appliance is told of who asks, as fields of the ICAP head (draft-stecher-icap-subid-00). */
import { isIP } from "node:net";
import { isFreeField } from "../../icap/index.ts";
import type { Identity, ScanContext } from "./scanner.ts";

/** `asked`: only if OPTIONS names the field in X-Include. */
export type Told = "never" | "asked" | "always";

export interface ContextRules {
  /** As X-Client-IP. */
  readonly clientIp: Told;
  /** As X-Server-IP. */
  readonly serverIp: Told;
  readonly user: Told;
  /** The field that names the user. */
  readonly userHeader: string;
  /** With `{user}` (`@alice:example.org`), `{localpart}` (`alice`) and `{server}` (`example.org`). */
  readonly userFormat: string;
  /** Of the whole value: base64 of its UTF-8, as appliances expect X-Authenticated-User, or as it is. */
  readonly userEncoding: "base64" | "plain";
}

type Fields = readonly (readonly [name: string, value: string])[];

const CLIENT_IP = "X-Client-IP";
const SERVER_IP = "X-Server-IP";

/** The specification's limit for a user ID, in bytes. */
const MAX_USER = 255;

/** @throws TypeError for a header or a format that can't name the user. */
export function checkContext({ userHeader, userFormat }: ContextRules): void {
  if (!isFreeField(userHeader)) throw new TypeError("not a header for the name of a user");
  if (!/^[\x20-\x7e]{1,200}$/.test(userFormat)) throw new TypeError("the format of a user's name must be printable ASCII");
}

/** Of whom the appliance is told, or may be as soon as it asks. */
export function identitiesOf({ clientIp, serverIp, user }: ContextRules): readonly Identity[] {
  const told = { client_ip: clientIp, server_ip: serverIp, user } satisfies Record<Identity, Told>;
  return (Object.keys(told) as Identity[]).filter((identity) => told[identity] !== "never");
}

/** Whether it takes OPTIONS' X-Include to know what to send. */
export function needsInclude({ clientIp, serverIp, user }: ContextRules): boolean {
  return [clientIp, serverIp, user].includes("asked");
}

/**
 * The fields for a scan on behalf of this asker; none for what is not known. Values are printable ASCII in one line, whatever the user is
 * called. `include`: OPTIONS' X-Include in lower case.
 */
export function contextFields(context: ScanContext | undefined, rules: ContextRules, include: readonly string[]): Fields {
  if (context === undefined) return [];
  const wanted = (told: Told, name: string): boolean => told === "always" || (told === "asked" && include.includes(name.toLowerCase()));
  const fields: (readonly [string, string])[] = [];
  const add = (told: Told, name: string, value: string | undefined): void => {
    if (value !== undefined && wanted(told, name)) fields.push([name, value]);
  };
  add(rules.clientIp, CLIENT_IP, addressOf(context.clientAddress));
  add(rules.serverIp, SERVER_IP, addressOf(context.serverAddress));
  add(rules.user, rules.userHeader, userOf(context.user, rules));
  return fields;
}

function addressOf(text: string | undefined): string | undefined {
  return text === undefined || isIP(text) === 0 ? undefined : text;
}

function userOf(user: string | undefined, { userFormat, userEncoding }: ContextRules): string | undefined {
  if (user === undefined || Buffer.byteLength(user) > MAX_USER) return undefined;
  const { localpart, server } = /^@(?<localpart>[^:]*):(?<server>.+)$/su.exec(user)?.groups ?? {};
  if (localpart === undefined || server === undefined) return undefined;
  const parts: Readonly<Record<string, string>> = { user, localpart, server };
  // At once, so that what stands in a user's name is never taken for a part of the format.
  const text = userFormat.replace(/\{(user|localpart|server)\}/g, (_, part: string) => escaped(parts[part] ?? "", userEncoding)).trim();
  if (text === "") return undefined;
  return userEncoding === "base64" ? Buffer.from(text).toString("base64") : text;
}

/**
 * Percent-encoded: in base64 what would break a line or hide itself once it is decoded, in a plain value all but visible ASCII. The percent
 * sign too, so that no two users look alike.
 */
function escaped(text: string, encoding: ContextRules["userEncoding"]): string {
  const unsafe = encoding === "base64" ? /[%\p{C}\p{Zl}\p{Zp}]/gu : /[^\x21-\x24\x26-\x7e]/gu;
  return text.toWellFormed().replace(unsafe, encodeURIComponent);
}
