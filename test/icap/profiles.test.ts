import { globSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { HeaderBlock } from "../../icap/codec/headers.ts";
import { PROFILE_NAMES, type ProfileName, pathOf, profileOf, readingOf } from "../../icap/profiles.ts";
import { type AnswerFacts, judge } from "../../icap/verdict.ts";
import { parse } from "./support/answers.ts";

/** What every answer is an answer to. */
const SENT = { requestLine: "PUT http://media.invalid/file.txt HTTP/1.1", body: "An ordinary file.\n" };

type Expected = "clean" | "modified" | "sanitised" | "error" | `infected: ${string}` | `unscannable: ${string}`;
interface Case {
  readonly named: Expected;
  /** Read as `auto`, where that is another verdict. */
  readonly auto?: Expected;
  readonly facts?: Partial<AnswerFacts>;
}

const CASES: Readonly<Record<ProfileName, Readonly<Record<string, Case | Expected>>>> = {
  auto: {
    clean: "clean",
    "clean-echo": "clean",
    unchecked: "error",
    partial: "modified",
    timeout: "error",
    "wants-credentials": "error",
    "wrong-version": "error",
    "clearswift-policy": "infected: Encrypted Archive",
  },
  "c-icap": {
    clean: "clean",
    echo: "clean",
    infected: "infected: Eicar-Test-Signature.UNOFFICIAL",
    "too-large-for-clamd": "unscannable: Heuristics.Limits.Exceeded.MaxScanSize",
    encrypted: "unscannable: Heuristics.Encrypted.Zip",
    trickled: "modified",
    "engine-down": "error",
    "access-denied": { named: "error", auto: "infected: ICAP 403" },
  },
  squidclamav: {
    clean: "clean",
    "infected-redirect": "infected: {HEX}EICAR.TEST.3.UNOFFICIAL",
    "infected-page": "infected: {HEX}EICAR.TEST.3.UNOFFICIAL",
    "no-clamd": "error",
  },
  eset: {
    clean: "clean",
    infected: "infected: Eicar",
    "infected-macro": "infected: VBA/TrojanDownloader.Agent.JOA",
    "reqmod-refused": { named: "error", facts: { method: "REQMOD" } },
  },
  "f-secure": {
    clean: "clean",
    "clean-echo": "clean",
    infected: 'infected: "Malware.W97M/Agent.32584203"',
    suspected: "infected: X-FSecure-Scan-Result: suspected",
    "not-scanned": "infected: X-FSecure-Scan-Result: not_scanned",
    error: "error",
  },
  kaspersky: {
    clean: "clean",
    "clean-echo": "clean",
    "clean-kwts": "clean",
    infected: "infected: EICAR-Test-File",
    "infected-by-default-settings": "infected: HTTP 403",
    "infected-kwts": "infected: HEUR:Backdoor.Java.QRat.gen",
    "blocked-kwts": "infected: X-Response-Info: blocked",
    error: "error",
  },
  skyhigh: {
    clean: "clean",
    "clean-echo": "clean",
    infected: "infected: EICAR test file",
    "infected-names": "infected: EICAR test file",
    "infected-without-rules": "infected: HTTP 403",
    "archive-not-supported": {
      named: "unscannable: X-Block-Reason: Archive not supported",
      auto: "infected: X-Block-Reason: Archive not supported",
    },
    "media-type": "infected: X-Block-Reason: Media Type (Block List)",
    "bad-composition": "error",
  },
  metadefender: {
    clean: "clean",
    "clean-echo": "clean",
    infected: "infected: EICAR Test String",
    encrypted: "unscannable: Encrypted Archive",
    "archive-depth": { named: "unscannable: Exceeded Archive Depth", auto: "infected: Exceeded Archive Depth" },
    sanitised: "sanitised",
    "bad-request": "error",
  },
  sophos: {
    clean: "clean",
    infected: "infected: Troj/DocDl-OYC",
    "infected-http-only": "infected: X-Blocked: Virus found during virus scan",
    error: "error",
  },
  "symantec-pe": {
    clean: "clean",
    repaired: "infected: Trojan.Gen.2",
    "infected-unrepaired": "infected: W32.Beagle.AO@mm",
    "infected-twice": "infected: EICAR Test String",
    "container-size": "unscannable: Container size violation",
    encrypted: "unscannable: Encrypted container violation",
    "changed-unnamed": "modified",
    forbidden: "infected: ICAP 403",
    "no-licence": "error",
    unavailable: "error",
  },
  "symantec-ca": {
    clean: "clean",
    infected: "infected: EICAR test file",
    "password-served": "unscannable: X-Error-Code: password_protected",
    "password-blocked": "unscannable: X-Error-Code: password_protected",
    "decode-error": "unscannable: X-Error-Code: decode_error",
    "too-many-layers": "unscannable: X-Error-Code: max_archive_layers_exceeded",
    "too-large": "unscannable: X-Error-Code: max_file_size_exceeded",
    "file-type": "infected: X-Error-Code: file_type_blocked",
    "engine-error": "error",
  },
  "trend-iwsva": {
    clean: "clean",
    "clean-described": "clean",
    infected: "infected: Trojan.W97M.POWLOAD.SMTHF1",
    "infected-by-default-settings": "infected: HTTP 403",
    "infected-unrepaired": "infected: ICAP 403",
    "bad-request": "error",
    "too-busy": "error",
    "no-licence": "error",
  },
  "vision-one": {
    clean: "clean",
    infected: "infected: HTTP 403",
    "too-many-files-in-zip": "error",
    "no-file-name": "error",
    unauthorised: "error",
    "reqmod-refused": { named: "error", facts: { method: "REQMOD" } },
  },
  sandblast: {
    clean: "clean",
    infected: "infected: Malicious file",
    error: "error",
  },
  fortisandbox: {
    clean: "clean",
    infected: "infected: HTTP 403",
    "preview-unsupported": { named: "error", facts: { sent: "preview" } },
    error: "error",
  },
  "broadcom-dlp": {
    clean: "clean",
    "clean-echo": "clean",
    blocked: "infected: HTTP 200 in answer to the request",
    "blocked-respmod": { named: "infected: another body came back", auto: "modified", facts: { method: "RESPMOD" } },
    "blocked-with-status": "infected: HTTP 403 in answer to the request",
    removed: "modified",
    redirected: "modified",
    forbidden: { named: "error", auto: "infected: ICAP 403" },
    error: "error",
    busy: "error",
  },
  "trellix-dlp": {
    clean: "clean",
    unscannable: { named: "unscannable: X-MFE-PREVENT: SCANFAIL", auto: "error" },
    "unscannable-echo": { named: "unscannable: X-MFE-PREVENT: SCANFAIL", auto: "error" },
    "unknown-word": "error",
    blocked: "infected: HTTP 403 in answer to the request",
    "too-large": "error",
  },
  icapeg: {
    clean: "clean",
    infected: "infected: HTTP 403",
    "infected-with-200": { named: "infected: another body came back", auto: "modified" },
    "infected-with-500": { named: "infected: HTTP 500", auto: "error" },
    "clamd-timeout": "error",
    error: "error",
  },
};

const DIRECTORY = join(import.meta.dirname, "fixtures/vendors");

/** The facts of a whole answer, to a request of which everything was sent unless the case says otherwise. */
function factsOf(path: string, profile: ProfileName, given: Partial<AnswerFacts> = {}): AnswerFacts {
  const bytes = readFileSync(join(DIRECTORY, path));
  const answer = parse([bytes]);
  expect([answer.complete, answer.read]).toEqual([true, bytes.length]);
  const method = given.method ?? profileOf(profile).method;
  const { http, request, bodySection, body } = answer;
  const hasBody = bodySection !== undefined && bodySection !== "null-body";
  return {
    method,
    icapStatus: answer.status,
    icapHeaders: blockOf(answer.fields),
    http: http === undefined ? undefined : { status: http.status, headers: blockOf(http.fields) },
    request: request === undefined ? "none" : request === SENT.requestLine ? "same" : "other",
    body: hasBody ? (body === SENT.body ? "identical" : "different") : "none",
    sent: "all",
    trustsPreview: false,
    sentHttpStatus: 200,
    ...given,
  };
}

function blockOf(fields: readonly (readonly [string, string])[]): HeaderBlock {
  return new HeaderBlock(
    fields.map(([name]) => name),
    fields.map(([, value]) => value),
  );
}

function read(facts: AnswerFacts, as: ProfileName): string {
  const verdict = judge(facts, readingOf(profileOf(as)));
  if (verdict.outcome === "infected") return `infected: ${verdict.threat}`;
  if (verdict.outcome === "unscannable") return `unscannable: ${verdict.why}`;
  return verdict.outcome === "modified" && verdict.sanitised === true ? "sanitised" : verdict.outcome;
}

const ALL = PROFILE_NAMES.flatMap((profile) =>
  Object.entries(CASES[profile]).map(([name, expected]) => {
    const full: Case = typeof expected === "string" ? { named: expected } : expected;
    return { profile, path: `${profile}/${name}.icap`, ...full };
  }),
);

describe("what vendors' servers answer", () => {
  it.each(ALL)("$path is $named", ({ path, profile, named, auto = named, facts }) => {
    const answer = factsOf(path, profile, facts);
    expect(read(answer, profile)).toBe(named);
    expect(read(answer, "auto")).toBe(auto);
  });

  it("is clean as auto only where it is as every profile", () => {
    for (const { path, profile, facts } of ALL) {
      const answer = factsOf(path, profile, facts);
      const cleanAs = PROFILE_NAMES.filter((name) => read(answer, name) === "clean");
      expect([path, cleanAs]).toEqual([path, read(answer, "auto") === "clean" ? PROFILE_NAMES : []]);
    }
  });

  it("is here for every profile: clean, and not", () => {
    const found = globSync("*/*.icap", { cwd: DIRECTORY }).toSorted();
    expect(found).toEqual(ALL.map(({ path }) => path).toSorted());
    for (const profile of PROFILE_NAMES) {
      const verdicts = ALL.filter((one) => one.profile === profile).map(({ named }) => named.replace(/:.*/, ""));
      expect([profile, ...new Set(verdicts)]).toEqual(expect.arrayContaining([profile, "clean", "infected", "error"]));
    }
  });
});

describe("a profile", () => {
  it.each(PROFILE_NAMES)("%s names no header that auto does not read", (name) => {
    const known = profileOf("auto").headers.map(({ header }) => header);
    expect(known).toEqual([...new Set(known)]);
    expect(profileOf(name).headers.filter(({ header }) => !known.includes(header))).toEqual([]);
  });

  it("has the path of its method, and of the other one", () => {
    const kaspersky = profileOf("kaspersky");
    expect([pathOf(kaspersky, "RESPMOD"), pathOf(kaspersky, "REQMOD")]).toEqual(["/resp", "/req"]);
    const broadcom = profileOf("broadcom-dlp");
    expect([broadcom.method, pathOf(broadcom, "REQMOD"), pathOf(broadcom, "RESPMOD")]).toEqual(["REQMOD", "/reqmod", "/respmod"]);
    const eset = profileOf("eset");
    expect([pathOf(eset, "RESPMOD"), pathOf(eset, "REQMOD")]).toEqual(["/scan", "/scan"]);
    expect(pathOf(profileOf("sophos"), "RESPMOD")).toBe("/");
  });
});

describe("a profile", () => {
  it("finds viruses, unless it is of what looks for leaks alone", () => {
    const blind = PROFILE_NAMES.filter((name) => !profileOf(name).findsViruses);
    expect(blind).toEqual(["broadcom-dlp", "trellix-dlp"]);
  });
});
