import type { HeaderRow, Reading, StatusRow } from "./reading.ts";

/** What is known of each vendor's ICAP server, as rows of data. */
export const PROFILE_NAMES = [
  "auto",
  "c-icap",
  "squidclamav",
  "eset",
  "f-secure",
  "kaspersky",
  "skyhigh",
  "metadefender",
  "sophos",
  "symantec-pe",
  "symantec-ca",
  "trend-iwsva",
  "vision-one",
  "sandblast",
  "fortisandbox",
  "broadcom-dlp",
  "trellix-dlp",
  "icapeg",
] as const;

export type ProfileName = (typeof PROFILE_NAMES)[number];

export interface Profile {
  readonly name: ProfileName;
  readonly product: string;
  readonly method: "RESPMOD" | "REQMOD";
  /** Of the URL, with its query, for that method, where the operator gives none. "/" where each installation has its own. */
  readonly path: string;
  /** The path for the other method, where it is another. */
  readonly otherPath: string | undefined;
  /** It acquits every preview without looking: one is never to be sent. */
  readonly blindPreview: boolean;
  /** It goes by the file's name or its type, which should therefore tell what the file is. */
  readonly wantsName: boolean;
  /** False for what looks for leaks alone, and so lets the test files of antivirus pass. */
  readonly findsViruses: boolean;
  /** What it is known to say, and how it means that. Whatever is not here is read as `auto` reads it. */
  readonly headers: readonly HeaderRow[];
  readonly icap: readonly StatusRow[];
  readonly http: readonly StatusRow[];
  readonly replaced: Reading["replaced"];
}

/** ClamAV's names for what it could not look into (AlertExceedsMax, AlertEncrypted). */
const CLAMAV_UNSCANNABLE = /^Heuristics\.(?:Limits\.Exceeded|Encrypted)(?:\.|$)/i;

/** Rows that `auto` has: every field that any vendor uses, in the order in which threat names are preferred. */
const INFECTION_FOUND: HeaderRow = { header: "X-Infection-Found", says: "infection-found", unscannable: CLAMAV_UNSCANNABLE };
const FSECURE_NAME: HeaderRow = { header: "X-FSecure-Infection-Name", says: "threat" };
const VIRUS_NAME: HeaderRow = { header: "X-Virus-Name", says: "threat" };
const VIOLATIONS_FOUND: HeaderRow = { header: "X-Violations-Found", says: "violations-found", unscannable: CLAMAV_UNSCANNABLE };
/** Kaspersky sends it with clean files as well. ESET's is localised, so it comes after the others. */
const VIRUS_ID: HeaderRow = { header: "X-Virus-ID", says: "threat", except: ["no threats"], unscannable: CLAMAV_UNSCANNABLE };
const FSECURE_RESULT: HeaderRow = { header: "X-FSecure-Scan-Result", says: "blocked", except: ["clean"] };
const FSECURE_FILE: HeaderRow = { header: "X-FSecure-Infected-Filename", says: "blocked" };
const BLOCK_REASON: HeaderRow = { header: "X-Block-Reason", says: "blocked" };
const BLOCKED_REASON: HeaderRow = { header: "X-Blocked-Reason", says: "blocked" };
const MWG_BLOCK_REASON: HeaderRow = { header: "X-MWG-Block-Reason", says: "blocked" };
const BLOCK_RESULT: HeaderRow = { header: "X-Block-Result", says: "blocked" };
const WW_BLOCK_RESULT: HeaderRow = { header: "X-WWBlockResult", says: "blocked" };
const BLOCKED: HeaderRow = { header: "X-Blocked", says: "blocked" };
const BLOCKED_BY: HeaderRow = { header: "X-Blocked-By", says: "blocked" };
/** MetaDefender: Allowed, Blocked. Kaspersky: passed, blocked. (X-Response-Desc tells why, but from some servers for clean files too.) */
const RESPONSE_INFO: HeaderRow = {
  header: "X-Response-Info",
  says: "blocked",
  except: ["allowed", "passed"],
  sanitised: ["allowed"],
};
/** Comes with a 204 as well, where Content Analysis is set to serve what it could not scan. */
const ERROR_CODE: HeaderRow = {
  header: "X-Error-Code",
  says: "error",
  unscannable: /^(?:password_protected|decode_error|unsupported_compression|max_[a-z_]+)$/i,
  blocked: /^[a-z_]+_blocked$/i,
};
const MFE_PREVENT: HeaderRow = { header: "X-MFE-PREVENT", says: "error" };

/** What MetaDefender calls the results of what it did not look into. */
const METADEFENDER_UNSCANNABLE = /^(?:Encrypted Archive|Password Protected Document|Exceeded Archive [a-z ]+|Not Scanned)$/i;

/** Any but 200 and 204; without a number it is an error as well. */
const ICAP_STATUSES: readonly StatusRow[] = [
  { status: 201, says: "modified" },
  { status: 202, says: "error", why: "nothing was checked" },
  // Never asked for (Allow: 206 is not sent).
  { status: 206, says: "modified" },
  { status: 403, says: "blocked" },
  { status: 404, says: "error", why: "no such service" },
  { status: 405, says: "error", why: "the service does not take this method" },
  { status: 407, says: "error", why: "it wants credentials" },
  { status: 408, says: "error", why: "the server gave up waiting" },
  { status: 418, says: "error", why: "bad composition" },
  { status: 505, says: "error", why: "ICAP version" },
  { status: 506, says: "error", why: "too busy" },
  { status: 539, says: "error", why: "no licence" },
  { status: 551, says: "error", why: "a resource is unavailable" },
  { status: 558, says: "error", why: "no licence" },
  { status: [205, 999], says: "error" },
  { status: [0, 203], says: "error" },
];

/** In place of the status that was sent: a redirection or a refusal is a block page. */
const HTTP_STATUSES: readonly StatusRow[] = [
  // These speak of the request, not of the file.
  { status: 400, says: "error" },
  { status: 401, says: "error" },
  { status: [300, 499], says: "blocked" },
  { status: [500, 999], says: "error" },
];

/** c-icap's access control. It says so to OPTIONS first. */
const ACCESS_DENIED: StatusRow = { status: 403, says: "error", why: "access denied" };
/** "Infected and not repaired." */
const INFECTED_403: StatusRow = { status: 403, says: "blocked" };

interface Row extends Partial<Omit<Profile, "name">> {
  readonly product: string;
}

const PROFILES: Readonly<Record<ProfileName, Row>> = {
  auto: {
    product: "any",
    headers: [
      INFECTION_FOUND,
      FSECURE_NAME,
      VIRUS_NAME,
      VIOLATIONS_FOUND,
      VIRUS_ID,
      FSECURE_RESULT,
      FSECURE_FILE,
      BLOCK_REASON,
      BLOCKED_REASON,
      MWG_BLOCK_REASON,
      BLOCK_RESULT,
      WW_BLOCK_RESULT,
      RESPONSE_INFO,
      BLOCKED,
      BLOCKED_BY,
      ERROR_CODE,
      MFE_PREVENT,
    ],
    icap: ICAP_STATUSES,
    http: HTTP_STATUSES,
  },
  "c-icap": {
    product: "c-icap virus_scan",
    // Types that it is not set to scan, and sizes, would be acquitted without these; allow204 keeps it from sending everything back.
    path: "/virus_scan?allow204=on&force=on&sizelimit=off&mode=simple",
    headers: [INFECTION_FOUND, VIOLATIONS_FOUND],
    icap: [ACCESS_DENIED],
  },
  squidclamav: {
    product: "SquidClamav",
    path: "/squidclamav",
    headers: [INFECTION_FOUND, VIRUS_ID],
    icap: [ACCESS_DENIED],
  },
  eset: {
    product: "ESET Server Security and Gateway Security",
    path: "/scan",
    headers: [INFECTION_FOUND, VIRUS_ID, RESPONSE_INFO],
  },
  "f-secure": {
    product: "F-Secure Internet Gatekeeper, WithSecure Atlant",
    path: "/respmod",
    otherPath: "/reqmod",
    headers: [FSECURE_NAME, FSECURE_RESULT, FSECURE_FILE],
  },
  kaspersky: {
    product: "Kaspersky Scan Engine, Kaspersky Web Traffic Security",
    // Scan Engine's; Web Traffic Security has /av/respmod and /av/reqmod.
    path: "/resp",
    otherPath: "/req",
    headers: [INFECTION_FOUND, VIRUS_ID, RESPONSE_INFO],
  },
  skyhigh: {
    product: "Skyhigh (McAfee) Web Gateway",
    path: "/respmod",
    otherPath: "/reqmod",
    wantsName: true,
    headers: [
      VIRUS_NAME,
      VIRUS_ID,
      { ...BLOCK_REASON, unscannable: /^Archive not supported$/i },
      { ...MWG_BLOCK_REASON, unscannable: /^Archive not supported$/i },
      BLOCK_RESULT,
      WW_BLOCK_RESULT,
    ],
  },
  metadefender: {
    product: "OPSWAT MetaDefender ICAP Server",
    path: "/OMSScanResp-AV",
    otherPath: "/OMSScanReq-AV",
    wantsName: true,
    headers: [
      INFECTION_FOUND,
      { ...VIOLATIONS_FOUND, unscannable: METADEFENDER_UNSCANNABLE },
      { ...VIRUS_ID, unscannable: METADEFENDER_UNSCANNABLE },
      { ...BLOCKED_REASON, unscannable: METADEFENDER_UNSCANNABLE },
      RESPONSE_INFO,
    ],
  },
  sophos: {
    product: "Sophos SAV Dynamic Interface",
    headers: [VIRUS_ID, BLOCKED, BLOCKED_BY],
  },
  "symantec-pe": {
    product: "Symantec Protection Engine",
    path: "/avscan",
    wantsName: true,
    headers: [INFECTION_FOUND, VIOLATIONS_FOUND],
    icap: [{ status: 201, says: "modified" }, INFECTED_403],
  },
  "symantec-ca": {
    product: "Symantec Content Analysis",
    path: "/avscan",
    wantsName: true,
    headers: [INFECTION_FOUND, VIOLATIONS_FOUND, VIRUS_ID, ERROR_CODE],
  },
  "trend-iwsva": {
    product: "Trend Micro InterScan Web Security, Deep Discovery Analyzer",
    // Web Gateway has /interscan.
    path: "/avscan",
    headers: [INFECTION_FOUND, VIRUS_ID],
    icap: [INFECTED_403],
  },
  "vision-one": {
    product: "Trend Vision One File Security",
    path: "/avscan",
    wantsName: true,
    headers: [INFECTION_FOUND, VIRUS_ID],
    http: [
      { status: 400, says: "error", why: "no file name or no body" },
      { status: 401, says: "error", why: "not authorised" },
      { status: 403, says: "blocked" },
      { status: 500, says: "error", why: "scan error" },
    ],
  },
  sandblast: {
    product: "Check Point SandBlast",
    path: "/sandblast",
    wantsName: true,
    headers: [INFECTION_FOUND, VIOLATIONS_FOUND],
    icap: [ACCESS_DENIED],
  },
  fortisandbox: {
    product: "Fortinet FortiSandbox",
    path: "/respmod",
    otherPath: "/reqmod",
    // Its document: a preview gets a 204, "which means it is not supported".
    blindPreview: true,
    wantsName: true,
    icap: [INFECTED_403],
  },
  "broadcom-dlp": {
    product: "Broadcom (Symantec) DLP Network Prevent for Web",
    method: "REQMOD",
    path: "/reqmod",
    otherPath: "/respmod",
    findsViruses: false,
    icap: [{ status: 403, says: "error" }],
    // A page of text, with HTTP 200 unless it is set otherwise.
    replaced: "blocked",
  },
  "trellix-dlp": {
    product: "Trellix (McAfee) DLP Network Prevent",
    method: "REQMOD",
    path: "/reqmod",
    otherPath: "/respmod",
    findsViruses: false,
    // With a 2xx: corrupt, too deep, too large or too slow to be analysed, and let through.
    headers: [{ ...MFE_PREVENT, unscannable: /^SCANFAIL\b/i }],
    icap: [{ status: 403, says: "error" }],
  },
  icapeg: {
    product: "ICAPeg with ClamAV",
    path: "/clamav",
    wantsName: true,
    // Whatever the operator has set; its own failures are ICAP statuses.
    http: [{ status: [100, 999], says: "blocked" }],
    replaced: "blocked",
  },
};

/** All that is known of a server of this kind. */
export function profileOf(name: ProfileName): Profile {
  return {
    method: "RESPMOD",
    path: "/",
    otherPath: undefined,
    blindPreview: false,
    wantsName: false,
    findsViruses: true,
    headers: [],
    icap: [],
    http: [],
    replaced: "modified",
    ...PROFILES[name],
    name,
  };
}

/** The path of a profile's URL for a method. */
export function pathOf(profile: Profile, method: Profile["method"]): string {
  return method === profile.method ? profile.path : (profile.otherPath ?? profile.path);
}

/**
 * How a profile's answers are to be read: its own rows, and those of `auto` for every header and status that it does not name. A field
 * in `blockedBy` blocks whatever its value and whatever the profile says of it.
 */
export function readingOf(profile: Profile, blockedBy: readonly string[] = []): Reading {
  const auto = profileOf("auto");
  const headers = auto.headers.map((row) => profile.headers.find((own) => own.header === row.header) ?? row);
  return {
    headers: [...headers, ...blockedBy.map((header): HeaderRow => ({ header, says: "blocked" }))],
    icap: [...profile.icap, ...auto.icap],
    http: [...profile.http, ...auto.http],
    replaced: profile.replaced,
    blindPreview: profile.blindPreview,
  };
}
