import { describe, expect, it } from "vitest";
import * as fc from "fast-check";
import { PROFILE_NAMES, type ProfileName, profileOf, readingOf } from "../../icap/profiles.ts";
import { judge } from "../../icap/verdict.ts";
import type { AnswerFacts, HeaderReader, Reading } from "../../icap/verdict.ts";

type Fields = Readonly<Record<string, string | readonly string[]>>;

function head(fields: Fields = {}): HeaderReader {
  const all = (name: string): readonly string[] =>
    Object.entries(fields)
      .filter(([key]) => key.toLowerCase() === name.toLowerCase())
      .flatMap(([, value]) => value);
  return { names: Object.keys(fields).map((name) => name.toLowerCase()), all, get: (name) => all(name)[0] };
}

/** A 204 after everything was sent, with these fields. */
function acquittal(fields: Fields = {}, facts: Partial<AnswerFacts> = {}): AnswerFacts {
  return {
    method: "RESPMOD",
    icapStatus: 204,
    icapHeaders: head(fields),
    http: undefined,
    request: "none",
    body: "none",
    sent: "all",
    trustsPreview: false,
    sentHttpStatus: 200,
    ...facts,
  };
}

/** A 200 that echoes what was sent, with these fields in the ICAP head. */
function echo(fields: Fields = {}, facts: Partial<AnswerFacts> = {}): AnswerFacts {
  return acquittal(fields, { icapStatus: 200, http: { status: 200, headers: head() }, body: "identical", ...facts });
}

/** A 200 around a page with this status. */
function page(status: number, fields: Fields = {}, httpFields: Fields = {}): AnswerFacts {
  return echo(fields, { http: { status, headers: head(httpFields) }, body: "different" });
}

/** A 200 to REQMOD that brings back the request that was sent. */
function sameRequest(fields: Fields = {}, facts: Partial<AnswerFacts> = {}): AnswerFacts {
  return acquittal(fields, { method: "REQMOD", icapStatus: 200, request: "same", requestHeaders: head(), body: "identical", ...facts });
}

const as = (name: ProfileName, ...blockedBy: string[]): Reading => readingOf(profileOf(name), blockedBy);

/** What a field that holds this name is told as. */
function threat(name: string): string {
  const verdict = judge(acquittal({ "X-Virus-ID": name }));
  return verdict.outcome === "infected" ? verdict.threat : verdict.outcome;
}

/** Whether a known field says that nothing was found. */
function harmless(name: string, value: string): boolean {
  const said = value.trim().toLowerCase();
  const clean: Record<string, readonly string[]> = {
    "X-Virus-ID": ["no threats"],
    "X-FSecure-Scan-Result": ["clean"],
    "X-Response-Info": ["allowed", "passed"],
  };
  return name === "Server" || clean[name]?.includes(said) === true || (name === "X-Violations-Found" && /^0+$/.test(said));
}

const EICAR = "Eicar-Test-Signature.UNOFFICIAL";

describe("clean", () => {
  it("is a 204 that came after the last chunk", () => {
    expect(judge(acquittal())).toEqual({ outcome: "clean", how: "204" });
  });

  it("is a 200 that echoes the status and every byte, after the last chunk", () => {
    expect(judge(echo())).toEqual({ outcome: "clean", how: "echo" });
  });

  it.each([
    ["X-Virus-ID", "no threats"],
    ["X-Virus-ID", " No Threats "],
    ["X-FSecure-Scan-Result", "clean"],
    ["X-Response-Info", "Allowed"],
    ["X-Response-Info", "allowed"],
    ["X-Response-Info", "passed"],
    ["X-Response-Desc", "FILE: No risk"],
    ["X-Violations-Found", "0"],
  ])("stays clean with the harmless %s: %s", (name, value) => {
    expect(judge(acquittal({ [name]: value })).outcome).toBe("clean");
    expect(judge(echo({}, { http: { status: 200, headers: head({ [name]: value }) } })).outcome).toBe("clean");
  });
});

describe("an answer that proves nothing", () => {
  it.each<[string, AnswerFacts]>([
    ["a 204 before the last chunk", acquittal({}, { sent: "part" })],
    ["a whole echo that began before the last chunk", echo({}, { sent: "part" })],
    ["a 204 with a message in it", acquittal({}, { http: { status: 200, headers: head() } })],
    ["a 204 with a body", acquittal({}, { body: "identical" })],
    ["a 200 without an encapsulated head", echo({}, { http: undefined })],
    ["100", acquittal({}, { icapStatus: 100 })],
    ["202, unchecked", echo({}, { icapStatus: 202 })],
    ["404", acquittal({}, { icapStatus: 404 })],
    ["405", acquittal({}, { icapStatus: 405 })],
    ["407", acquittal({}, { icapStatus: 407 })],
    ["418", acquittal({}, { icapStatus: 418 })],
    ["500", acquittal({}, { icapStatus: 500 })],
    ["539, no licence", acquittal({}, { icapStatus: 539 })],
    ["no number", acquittal({}, { icapStatus: Number.NaN })],
    ["a scan error inside a 200", page(500)],
    ["no file name for Vision One", page(400)],
    ["no authorisation for Vision One", page(401)],
    ["Trellix's 204 without a scan", acquittal({ "X-MFE-PREVENT": "SCANFAIL" })],
    ["Trellix's echo without a scan", echo({}, { http: { status: 200, headers: head({ "x-mfe-prevent": "SCANFAIL" }) } })],
    ["an engine's trouble", acquittal({ "X-Error-Code": "antivirus_engine_error" }, { icapStatus: 500 })],
    ["an error code nobody knows", acquittal({ "X-Error-Code": "" })],
  ])("is an error: %s", (_, facts) => {
    expect(judge(facts).outcome).toBe("error");
  });

  it.each<[string, AnswerFacts]>([
    ["Symantec's 201", echo({}, { icapStatus: 201, body: "different" })],
    ["a block page with HTTP 200", page(200)],
    ["an echo cut short", echo({}, { body: "different" })],
    ["an echo without its body", echo({}, { body: "none" })],
    ["another success than the one sent", echo({}, { http: { status: 206, headers: head() } })],
    ["sanitised content", page(200, { "X-Response-Info": "Allowed" })],
    ["201 around the same bytes", echo({}, { icapStatus: 201 })],
    ["206", echo({}, { icapStatus: 206 })],
  ])("is modified: %s", (_, facts) => {
    expect(judge(facts).outcome).toBe("modified");
  });
});

describe("infected", () => {
  it.each<[string, Fields, string]>([
    ["c-icap", { "X-Infection-Found": `Type=0; Resolution=2; Threat=${EICAR};`, "X-Violations-Found": `1\n-\n${EICAR}\n0\n0` }, EICAR],
    ["no final semicolon", { "X-Infection-Found": "Type=0; Resolution=2; Threat=EICAR" }, "EICAR"],
    ["any spelling", { "x-infection-found": "TYPE = 0 ;resolution=2;THREAT= a, b = c " }, "a, b = c"],
    ["a threat with semicolons", { "X-Infection-Found": "Type=0; Resolution=2; Threat=A;B;" }, "A;B"],
    ["policy", { "X-Infection-Found": "Type=1; Resolution=2; Threat=Blocked by policy;" }, "Blocked by policy"],
    ["a repaired file", { "X-Infection-Found": "Type=0; Resolution=1; Threat=W97M.Downloader;" }, "W97M.Downloader"],
    ["a repaired container", { "X-Infection-Found": "Type=2; Resolution=1; Threat=Container;" }, "Container"],
    ["two types", { "X-Infection-Found": "Type=0; Resolution=2; Threat=A;Type=2" }, "A;Type=2"],
    ["two types, the other way round", { "X-Infection-Found": "Type=2; Type=0; Threat=A" }, "A"],
    [
      "a repaired one of ClamAV's",
      { "X-Infection-Found": "Type=0; Resolution=1; Threat=Heuristics.Encrypted.Zip" },
      "Heuristics.Encrypted.Zip",
    ],
    [
      "more than anybody reads",
      { "X-Infection-Found": `Type=2; Threat=${"a".repeat(5000)}` },
      `X-Infection-Found: Type=2; Threat=${"a".repeat(165)}…`,
    ],
    ["not to be parsed", { "X-Infection-Found": "yes" }, "yes"],
    ["empty", { "X-Infection-Found": "" }, "unnamed"],
    ["a second field", { "X-Infection-Found": ["Type=2; Resolution=2; Threat=Zip;", "Type=0; Resolution=2; Threat=EICAR;"] }, "EICAR"],
    ["violations alone", { "X-Violations-Found": "1\n\ta.zip/b c\n\tA Threat\n\t17\n\t2" }, "A Threat"],
    ["violations in one line", { "X-Violations-Found": `1 - ${EICAR} 0 0` }, `X-Violations-Found: 1 - ${EICAR} 0 0`],
    ["a number of violations that nothing follows", { "X-Violations-Found": "1" }, "X-Violations-Found: 1"],
    ["no number of violations", { "X-Violations-Found": "" }, "X-Violations-Found:"],
    ["Kaspersky, Sophos, Trend", { "X-Virus-ID": "HEUR:Backdoor.Java.QRat.gen" }, "HEUR:Backdoor.Java.QRat.gen"],
    ["an empty virus ID", { "X-Virus-ID": "" }, "unnamed"],
    ["F-Secure's result", { "X-FSecure-Scan-Result": "infected" }, "X-FSecure-Scan-Result: infected"],
    ["F-Secure's other results", { "X-FSecure-Scan-Result": "suspected" }, "X-FSecure-Scan-Result: suspected"],
    ["F-Secure's name", { "X-FSecure-Scan-Result": "infected", "X-FSecure-Infection-Name": "Malware.W97M/Agent" }, "Malware.W97M/Agent"],
    ["F-Secure's file", { "X-FSecure-Infected-Filename": "a" }, "X-FSecure-Infected-Filename: a"],
    [
      "Skyhigh's name",
      { "X-Virus-Name": "EICAR test file", "X-Block-Reason": "Malware found", "X-WWBlockResult": "80" },
      "EICAR test file",
    ],
    ["Skyhigh's reason", { "X-Block-Reason": "Malware found" }, "X-Block-Reason: Malware found"],
    ["Skyhigh's result", { "X-WWBlockResult": "80" }, "X-WWBlockResult: 80"],
    ["McAfee's result", { "X-Block-Result": "80" }, "X-Block-Result: 80"],
    ["McAfee's reason", { "X-MWG-Block-Reason": "Malware found" }, "X-MWG-Block-Reason: Malware found"],
    ["MetaDefender, ESET", { "X-Response-Info": "Blocked" }, "X-Response-Info: Blocked"],
    ["an answer between allowed and blocked", { "X-Response-Info": "Allowed?" }, "X-Response-Info: Allowed?"],
    ["MetaDefender's reason", { "X-Blocked-Reason": "Infected" }, "X-Blocked-Reason: Infected"],
    ["Sophos", { "X-Blocked": "yes" }, "X-Blocked: yes"],
    ["Sophos' by", { "X-Blocked-By": "SAVI" }, "X-Blocked-By: SAVI"],
    ["Symantec's file types", { "X-Error-Code": "file_type_blocked" }, "X-Error-Code: file_type_blocked"],
    ["a name that only looks like a limit", { "X-Virus-ID": "Heuristics.EncryptedNot" }, "Heuristics.EncryptedNot"],
  ])("says %s, in either head, whatever the status", (_, fields, threat) => {
    const infected = { outcome: "infected", threat };
    expect(judge(acquittal(fields))).toEqual(infected);
    expect(judge(echo(fields))).toEqual(infected);
    expect(judge(echo({}, { http: { status: 200, headers: head(fields) } }))).toEqual(infected);
    expect(judge(page(500, fields))).toEqual(infected);
    expect(judge(acquittal(fields, { icapStatus: 500, sent: "part" }))).toEqual(infected);
  });

  it.each([302, 303, 307, 403, 404, 451])("is an encapsulated %d without a header", (status) => {
    expect(judge(page(status))).toEqual({ outcome: "infected", threat: `HTTP ${status}` });
    expect(judge(echo({}, { http: { status, headers: head() }, body: "none" })).outcome).toBe("infected");
  });

  it("is Trend's ICAP 403", () => {
    expect(judge(acquittal({}, { icapStatus: 403 }))).toEqual({ outcome: "infected", threat: "ICAP 403" });
  });

  it("is Symantec's 201 that says what it repaired", () => {
    const facts = echo({ "X-Infection-Found": "Type=0; Resolution=1; Threat=A;" }, { icapStatus: 201, body: "different" });
    expect(judge(facts)).toEqual({ outcome: "infected", threat: "A" });
  });
});

describe("unscannable", () => {
  it.each<[string, Fields, string]>([
    [
      "a container",
      { "X-Infection-Found": "Type=2; Resolution=2; Threat=Encrypted container violation;" },
      "Encrypted container violation",
    ],
    [
      "MetaDefender",
      { "X-Infection-Found": "Type=2; Resolution=2; Threat=Encrypted Archive", "X-Response-Info": "Blocked" },
      "Encrypted Archive",
    ],
    [
      "ClamAV's limits",
      {
        "X-Infection-Found": "Type=0; Resolution=2; Threat=Heuristics.Limits.Exceeded.MaxScanSize;",
        "X-Violations-Found": "1\n\t-\n\tHeuristics.Limits.Exceeded.MaxScanSize\n\t0\n\t0",
      },
      "Heuristics.Limits.Exceeded.MaxScanSize",
    ],
    ["ClamAV's encrypted archives", { "X-Virus-ID": "Heuristics.Encrypted.Zip" }, "Heuristics.Encrypted.Zip"],
    [
      "a container whose name the violations repeat",
      { "X-Infection-Found": "Type=2; Resolution=2; Threat=Deep;", "X-Violations-Found": "1\n-\nDeep\n0\n0", "X-Virus-ID": "Deep" },
      "Deep",
    ],
    ["Symantec's passwords", { "X-Error-Code": "password_protected" }, "X-Error-Code: password_protected"],
    ["Symantec's layers", { "X-Error-Code": "max_archive_layers_exceeded" }, "X-Error-Code: max_archive_layers_exceeded"],
    ["Symantec's decoder", { "X-Error-Code": "decode_error" }, "X-Error-Code: decode_error"],
  ])("says %s, whatever the status", (_, fields, why) => {
    const unscannable = { outcome: "unscannable", why };
    expect(judge(acquittal(fields))).toEqual(unscannable);
    expect(judge(page(403, fields))).toEqual(unscannable);
    expect(judge(page(500, {}, fields))).toEqual(unscannable);
    expect(judge(acquittal(fields, { icapStatus: 500 }))).toEqual(unscannable);
  });

  it.each<[string, Fields]>([
    ["another violation", { "X-Violations-Found": `2\n\t-\n\tDeep\n\t0\n\t0\n\ta\n\t${EICAR}\n\t0\n\t0` }],
    ["a violation that is not told", { "X-Violations-Found": "2\n\t-\n\tDeep\n\t0\n\t0" }],
    ["violations that can't be told apart", { "X-Violations-Found": "1 - Deep 0 0" }],
    ["another virus ID", { "X-Virus-ID": EICAR }],
    ["a name", { "X-FSecure-Infection-Name": EICAR }],
  ])("gives way to an infection: %s", (_, fields) => {
    expect(judge(page(403, { "X-Infection-Found": "Type=2; Resolution=2; Threat=Deep;", ...fields })).outcome).toBe("infected");
  });
});

describe("texts", () => {
  it("escape what a terminal or a log would obey", () => {
    expect(threat("a\u001b[31m\u0000\u0085\u202e\u2028b")).toBe("a\\u{1b}[31m\\u{0}\\u{85}\\u{202e}\\u{2028}b");
    expect(threat("\ud800x")).toBe("\ufffdx");
  });

  it("are at most 200 characters", () => {
    expect(threat("x".repeat(5000))).toHaveLength(200);
    expect(threat("x".repeat(300))).toBe(`${"x".repeat(199)}…`);
    expect(threat("\u0001".repeat(300)).length).toBeLessThanOrEqual(200);
  });

  it("put UTF-8 right that was read as Latin-1, and leave Latin-1 alone", () => {
    expect(threat(Buffer.from("Bösartig – 病毒", "utf8").toString("latin1"))).toBe("Bösartig – 病毒");
    expect(threat("Bösartig")).toBe("Bösartig");
    expect(threat("病毒")).toBe("病毒");
    expect(threat(Buffer.from("病".repeat(400), "utf8").toString("latin1"))).toBe(`${"病".repeat(199)}…`);
  });
});

describe("REQMOD", () => {
  it("is clean by a 204, and by the same request with the same body", () => {
    expect(judge(acquittal({}, { method: "REQMOD" }))).toEqual({ outcome: "clean", how: "204" });
    expect(judge(sameRequest())).toEqual({ outcome: "clean", how: "echo" });
  });

  it.each([200, 204, 302, 403, 500])("is blocked by a response of any status in the request's place: %d", (status) => {
    const satisfied = sameRequest({}, { http: { status, headers: head() }, request: "none", body: "different" });
    expect(judge(satisfied)).toEqual({ outcome: "infected", threat: `HTTP ${status} in answer to the request` });
    expect(judge({ ...satisfied, request: "same", body: "identical" }).outcome).toBe("infected");
    expect(judge({ ...satisfied, sent: "part" }).outcome).toBe("infected");
  });

  it("is no block when the ICAP server failed, whatever page it sends", () => {
    expect(judge(sameRequest({}, { icapStatus: 500, http: { status: 200, headers: head() } })).outcome).toBe("error");
    expect(judge(sameRequest({}, { icapStatus: 503, http: { status: 503, headers: head() } })).outcome).toBe("error");
  });

  it.each<[string, Partial<AnswerFacts>]>([
    ["another request line", { request: "other" }],
    ["another body", { body: "different" }],
    ["no body", { body: "none" }],
  ])("is modified by %s", (_, facts) => {
    expect(judge(sameRequest({}, facts)).outcome).toBe("modified");
  });

  it.each<[string, Partial<AnswerFacts>]>([
    ["a 200 without a request", { request: "none" }],
    ["a 204 with a request", { icapStatus: 204, body: "none" }],
    ["an echo that began before the last chunk", { sent: "part" }],
  ])("is an error: %s", (_, facts) => {
    expect(judge(sameRequest({}, facts)).outcome).toBe("error");
  });

  it("heeds what the head of the returned request says", () => {
    expect(judge(sameRequest({}, { requestHeaders: head({ "X-Virus-ID": EICAR }) }))).toEqual({ outcome: "infected", threat: EICAR });
  });
});

describe("an acquittal by a preview", () => {
  const previewed = acquittal({}, { sent: "preview" });

  it("is an error unless previews are trusted", () => {
    expect(judge(previewed).outcome).toBe("error");
    expect(judge({ ...previewed, trustsPreview: true })).toEqual({ outcome: "clean", how: "204" });
  });

  it("is never believed of a server that acquits every preview", () => {
    expect(judge({ ...previewed, trustsPreview: true }, as("fortisandbox")).outcome).toBe("error");
  });

  it("is an error by an echo, and by a 204 that came before the preview was out", () => {
    expect(judge(echo({}, { sent: "preview", trustsPreview: true })).outcome).toBe("error");
    expect(judge(acquittal({}, { sent: "part", trustsPreview: true })).outcome).toBe("error");
  });

  it("gives way to what a header says", () => {
    expect(judge({ ...previewed, trustsPreview: true, icapHeaders: head({ "X-Virus-ID": EICAR }) }).outcome).toBe("infected");
  });
});

describe("a header that is configured to block", () => {
  it("does so in any head, with any value, whatever the profile says of it", () => {
    const reading = as("kaspersky", "X-Corporate-Block", "x-virus-id");
    for (const fields of [{ "x-corporate-block": "" }, { "X-Virus-ID": "no threats" }]) {
      expect(judge(acquittal(fields), reading).outcome).toBe("infected");
      expect(judge(echo({}, { http: { status: 200, headers: head(fields) } }), reading).outcome).toBe("infected");
      expect(judge(acquittal(fields), as("kaspersky")).outcome).toBe("clean");
    }
    expect(judge(acquittal({ "X-Corporate-Block": "rule 7" }), reading)).toEqual({
      outcome: "infected",
      threat: "X-Corporate-Block: rule 7",
    });
    expect(judge(acquittal(), reading).outcome).toBe("clean");
  });
});

describe("another body under the same status", () => {
  const other = echo({}, { body: "different" });

  it("is sanitised where the server says so, and nothing else speaks against it", () => {
    const allowed = { "X-Response-Info": "Allowed" };
    expect(judge(page(200, allowed))).toEqual({ outcome: "modified", why: "a sanitised body came back", sanitised: true });
    expect(judge(other)).toEqual({ outcome: "modified", why: "another body came back" });
    expect(judge(page(200, { "X-Response-Info": "passed" }))).not.toHaveProperty("sanitised");
    expect(judge(echo(allowed, { body: "none" }))).not.toHaveProperty("sanitised");
    expect(judge(echo(allowed, { icapStatus: 206, body: "different" }))).not.toHaveProperty("sanitised");
    expect(judge(sameRequest(allowed, { body: "different" }))).not.toHaveProperty("sanitised");
    expect(judge(page(201, allowed))).not.toHaveProperty("sanitised");
    expect(judge(page(200, { ...allowed, "X-Virus-ID": EICAR })).outcome).toBe("infected");
  });

  it.each<ProfileName>(["broadcom-dlp", "icapeg"])("is a block page from %s, if it came after all was sent", (name) => {
    expect(judge(other, as(name)).outcome).toBe("infected");
    expect(judge({ ...other, sent: "part" }, as(name)).outcome).toBe("error");
  });
});

const PROVED = {
  method: "RESPMOD",
  icapStatus: 204,
  icap: {},
  http: undefined,
  request: "none",
  requestFields: undefined,
  body: "none",
  sent: "all",
  trustsPreview: false,
  sentHttpStatus: 200,
} as const;

describe("by property", () => {
  const status = fc.oneof(
    fc.constantFrom(200, 204),
    fc.constantFrom(201, 206, 403, 500),
    fc.integer({ min: 0, max: 999 }),
    fc.constant(Number.NaN),
  );
  const names = fc.constantFrom(
    "X-Infection-Found",
    "X-Violations-Found",
    "X-Virus-ID",
    "X-FSecure-Scan-Result",
    "X-FSecure-Infection-Name",
    "X-FSecure-Infected-Filename",
    "X-Virus-Name",
    "X-Block-Reason",
    "X-MWG-Block-Reason",
    "X-Block-Result",
    "X-WWBlockResult",
    "X-Response-Info",
    "X-Blocked-Reason",
    "X-Blocked",
    "X-Blocked-By",
    "X-Error-Code",
    "X-MFE-PREVENT",
    "Server",
  );
  const pieces = fc.constantFrom(
    "Type=",
    "Resolution=",
    "Threat=",
    "0",
    "1",
    "2",
    ";",
    " ",
    "\n\t",
    "-",
    EICAR,
    "no threats",
    "clean",
    "Allowed",
    "passed",
    "Encrypted Archive",
    "SCANFAIL",
    "é",
  );
  const values = fc.oneof(
    fc.string({ unit: "binary" }),
    fc.array(pieces).map((parts) => parts.join("")),
  );
  // Half of them are silent, so that proofs come about.
  const fields = fc.oneof(fc.constant<Record<string, string>>({}), fc.dictionary(names, values, { maxKeys: 3, noNullPrototype: true }));
  const arbitrary = fc.record({
    method: fc.constantFrom<AnswerFacts["method"]>("RESPMOD", "REQMOD"),
    icapStatus: status,
    icap: fields,
    http: fc.option(fc.record({ status, fields }), { nil: undefined }),
    request: fc.constantFrom<AnswerFacts["request"]>("none", "same", "other"),
    requestFields: fc.option(fields, { nil: undefined }),
    body: fc.constantFrom<AnswerFacts["body"]>("none", "identical", "different"),
    sent: fc.constantFrom<AnswerFacts["sent"]>("all", "preview", "part"),
    trustsPreview: fc.boolean(),
    sentHttpStatus: fc.oneof(fc.constant(200), status),
  });

  it("only the proofs ever give clean, as whatever profile it is read, and no text is unbounded or raw", () => {
    const readings = PROFILE_NAMES.map((name) => [name, as(name)] as const);
    const seen = { clean: 0 };
    fc.assert(
      fc.property(arbitrary, ({ icap, http, requestFields, ...rest }) => {
        const facts: AnswerFacts = {
          ...rest,
          icapHeaders: head(icap),
          http: http === undefined ? undefined : { status: http.status, headers: head(http.fields) },
          requestHeaders: requestFields === undefined ? undefined : head(requestFields),
        };
        const { method, icapStatus, request, body, sent } = facts;
        const said = [icap, http?.fields ?? {}, requestFields ?? {}].flatMap((one) => Object.entries(one));
        const silent = said.every(([name, value]) => harmless(name, value));
        const by204 = icapStatus === 204 && http === undefined && request === "none" && body === "none";
        const came =
          method === "RESPMOD" ? http !== undefined && http.status === facts.sentHttpStatus : http === undefined && request === "same";
        const byEcho = icapStatus === 200 && came && body === "identical";
        for (const [name, reading] of readings) {
          const previewed = sent === "preview" && facts.trustsPreview && by204 && name !== "fortisandbox";
          const verdict = judge(facts, reading);
          expect([name, verdict.outcome === "clean"]).toEqual([name, silent && (sent === "all" ? by204 || byEcho : previewed)]);
          if (verdict.outcome === "clean") {
            seen.clean++;
            continue;
          }
          const text = verdict.outcome === "infected" ? verdict.threat : verdict.why;
          expect(text).toMatch(/^[^\p{Cc}]{1,200}$/u);
        }
      }),
      {
        numRuns: 2000,
        // The proofs are rare among what is generated.
        examples: [
          [{ ...PROVED, icapStatus: 204 }],
          [{ ...PROVED, icapStatus: 204, sent: "preview", trustsPreview: true }],
          [{ ...PROVED, icapStatus: 200, http: { status: 200, fields: { "X-Response-Info": "passed" } }, body: "identical" }],
          [{ ...PROVED, method: "REQMOD", icapStatus: 200, request: "same", body: "identical" }],
        ],
      },
    );
    expect(seen.clean).toBeGreaterThan(0);
  });
});
