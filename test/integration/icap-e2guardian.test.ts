import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { IcapServiceOptions } from "../../icap/index.ts";
import type { ReplicaStatus } from "../../src/scan/icap-scanner.ts";
import { type Clamd, startClamd } from "../support/peers/clamd.ts";
import { ALLOWED_REQUEST, type E2guardian, startE2guardian } from "../support/peers/e2guardian.ts";
import { all, askLibrary, askScanner, behindCanaries, cellsOf, fitted, INFECTED, type Limit, type Samples } from "./icap-table.ts";

interface Row {
  readonly service: "response" | "request" | "nothing";
  /** Whether RESPMOD comes with what REQMOD's answer would have said; the gateway's scanner has no such thing to say. */
  readonly allowed: boolean;
  readonly asked: Omit<IcapServiceOptions, "url">;
  readonly says: Samples;
  readonly limit?: Limit;
  /** What its canaries prove of it. */
  readonly proof?: ReplicaStatus["state"];
}

interface Configuration {
  /** In place of what the package's e2guardian.conf says. */
  readonly settings?: Readonly<Record<string, string>>;
  /** Ends before the first question. */
  readonly clamdDies?: boolean;
  readonly rows: readonly Row[];
}

const never = { preview: "never" } as const;
const required = { preview: "required" } as const;

/** Large files come back while they are sent. */
const EARLY = {
  last3MB: "lets_pass or error",
  last8MB: "lets_pass or error",
  random3MB: "clean or error",
  random8MB: "clean or error",
} as const;

const CONFIGURATIONS: Readonly<Record<string, Configuration>> = {
  "as its package sets it, with clamd": {
    rows: [
      { service: "response", allowed: true, asked: never, says: all("modified", "clean") },
      { service: "response", allowed: true, asked: required, says: all("modified", "clean") },
      { service: "response", allowed: false, asked: never, says: all("error", "error"), proof: "down" },
      // It looks at requests' URLs alone.
      {
        service: "request",
        allowed: false,
        asked: { ...never, method: "REQMOD" },
        says: { ...all("lets_pass", "clean"), ...EARLY },
        proof: "broken",
      },
      // The head of this 400 never ends.
      {
        service: "nothing",
        allowed: false,
        asked: { ...never, timeouts: { answer: 200 } },
        says: all("timeout", "timeout"),
        proof: "down",
      },
    ],
  },
  "one that scans files up to 4 MiB": {
    settings: { maxcontentfilecachescansize: "4096" },
    rows: [
      {
        service: "response",
        allowed: true,
        asked: never,
        says: { ...all("modified", "clean"), last8MB: "lets_pass or error", random8MB: "clean or error" },
        limit: {
          bytes: 4096 * 1024,
          infected: ["modified", "modified", "lets_pass or error"],
          harmless: ["clean", "clean", "clean or error"],
        },
      },
    ],
  },
  "one whose clamd has ended": {
    clamdDies: true,
    rows: [{ service: "response", allowed: true, asked: never, says: { ...all("modified", "modified"), empty: "clean" } }],
  },
};

describe.each(Object.entries(CONFIGURATIONS))("e2guardian: %s", (_, { rows, settings = {}, clamdDies }) => {
  let clamd: Clamd;
  let e2guardian: E2guardian;
  beforeAll(async () => {
    clamd = await startClamd();
    e2guardian = await startE2guardian({ clamd, settings });
    if (clamdDies === true) await clamd.kill();
  });
  afterAll(async () => {
    await e2guardian?.stop();
    await clamd?.stop();
  });

  const named = rows.map((row) => {
    const { method = "RESPMOD", preview } = row.asked;
    return [`${method} ${row.service}, preview ${preview}${row.allowed ? `, ${ALLOWED_REQUEST[0]}` : ""}`, row] as const;
  });

  it.each(named)("%s", async (__, row) => {
    const fields = row.allowed ? [ALLOWED_REQUEST] : [];
    const came = await askLibrary({ url: e2guardian.url(row.service), ...row.asked }, row, fields);
    expect(fitted(cellsOf(row), came)).toEqual(cellsOf(row));
  });

  it.each(named.filter(([, { proof }]) => proof !== undefined))("%s, with canaries", async (__, row) => {
    const { state, came } = await askScanner({ url: e2guardian.url(row.service), ...row.asked }, row);
    expect(state).toBe(row.proof);
    expect(came).toEqual(behindCanaries(row, state));
  });
});

describe("e2guardian, told what an infected file is", () => {
  let clamd: Clamd;
  let e2guardian: E2guardian;
  beforeAll(async () => {
    clamd = await startClamd();
    e2guardian = await startE2guardian({ clamd });
  });
  afterAll(async () => {
    await e2guardian?.stop();
    await clamd?.stop();
  });

  // In place of a picture comes one of seven bytes, and its head ends as no HTTP head does.
  it.each([
    ["image/png", "media.png"],
    ["application/x-shockwave-flash", "media.swf"],
    ["text/html", "media.html"],
  ])("%s: not acquitted", async (contentType, fileName) => {
    const came = await askLibrary({ url: e2guardian.url() }, { says: all("modified", "clean") }, [ALLOWED_REQUEST], {
      contentType,
      fileName,
    });
    expect(came).toMatchObject(Object.fromEntries(Object.keys(INFECTED).map((name) => [name, "modified"])));
  });
});
