/** The requests of the demonstration, and what each must be answered. */
import type { Answer, ScannerClient } from "./client.ts";
import { type DemoMedia, SERVER_NAME } from "./demo-media.ts";
import { decryptAttachment } from "./encrypted-attachment.ts";

export const TOKEN = "demo-token";

export interface Row {
  readonly request: string;
  readonly status: number;
  readonly answer: string;
  readonly verdict: string;
  readonly milliseconds: number;
  /** What should have come, where something else did. */
  readonly expected: string | undefined;
}

interface Step {
  readonly request: string;
  readonly send: () => Promise<Answer>;
  readonly expect: { readonly status: number; readonly reason?: string; readonly clean?: boolean };
  /** Says what the body is; throws when it is not what it should be. */
  readonly check?: (body: Buffer) => Promise<string>;
}

export async function* tour(client: ScannerClient, media: DemoMedia): AsyncGenerator<Row> {
  for (const step of stepsOf(client, media)) yield await take(step);
}

const BLOCKED = { status: 403, reason: "MCS_MEDIA_NOT_CLEAN" };

function stepsOf(client: ScannerClient, { clean, notice, encryptedClean, encryptedEicar }: DemoMedia): Step[] {
  const get = (endpoint: string, mediaId: string, token?: string) => (): Promise<Answer> =>
    client.get(`/${endpoint}/${SERVER_NAME}/${mediaId}`, token);
  const decrypts = async (body: Buffer): Promise<string> => {
    if (!(await decryptAttachment(encryptedClean, body)).equals(clean)) throw new Error("it decrypts to something else");
    return `${body.length} bytes; decrypts to the file`;
  };
  return [
    { request: "GET  download clean file", send: get("download", "clean", TOKEN), expect: { status: 200 }, check: is(clean) },
    { request: "GET  scan clean file", send: get("scan", "clean", TOKEN), expect: { status: 200, clean: true } },
    { request: "GET  download EICAR", send: get("download", "eicar", TOKEN), expect: BLOCKED },
    { request: "GET  scan EICAR", send: get("scan", "eicar", TOKEN), expect: { status: 200, clean: false } },
    { request: "GET  scan file on the SHA-256 list", send: get("scan", "listed", TOKEN), expect: { status: 200, clean: false } },
    {
      request: "POST download_encrypted clean file",
      send: () => client.post("/download_encrypted", encryptedClean, TOKEN),
      expect: { status: 200 },
      check: decrypts,
    },
    {
      request: "POST scan_encrypted clean file, sealed",
      send: () => client.postSealed("/scan_encrypted", encryptedClean, TOKEN),
      expect: { status: 200, clean: true },
    },
    {
      request: "POST download_encrypted EICAR, sealed",
      send: () => client.postSealed("/download_encrypted", encryptedEicar, TOKEN),
      expect: BLOCKED,
    },
    {
      request: "POST scan_encrypted EICAR",
      send: () => client.post("/scan_encrypted", encryptedEicar, TOKEN),
      expect: { status: 200, clean: false },
    },
    {
      request: "GET  download clean file, wrong token",
      send: get("download", "clean", "stolen-token"),
      expect: { status: 401, reason: "M_UNKNOWN_TOKEN" },
    },
    { request: "GET  download old media, no token", send: get("download", "notice"), expect: { status: 200 }, check: is(notice) },
  ];
}

/** A check for the very bytes that were uploaded. */
function is(uploaded: Buffer): NonNullable<Step["check"]> {
  return async (body) => {
    if (!body.equals(uploaded)) throw new Error("other bytes came");
    return `${body.length} bytes, as uploaded`;
  };
}

async function take({ request, send, expect, check }: Step): Promise<Row> {
  const answer = await send();
  const { status, json, milliseconds } = answer;
  const reason = typeof json?.["reason"] === "string" ? json["reason"] : undefined;
  const clean = typeof json?.["clean"] === "boolean" ? json["clean"] : undefined;
  const asExpected = status === expect.status && reason === expect.reason && clean === expect.clean;
  const wanted = asExpected ? undefined : JSON.stringify(expect);
  const row = { request, status, verdict: verdictOf(status, reason, clean), milliseconds };
  if (json !== undefined) return { ...row, answer: reason ?? describe(json), expected: wanted };
  try {
    return { ...row, answer: (await check?.(answer.body)) ?? `${answer.body.length} bytes`, expected: wanted };
  } catch (error) {
    return {
      ...row,
      answer: `${answer.body.length} bytes`,
      expected: `the file, but ${error instanceof Error ? error.message : "it is not"}`,
    };
  }
}

function describe(json: Readonly<Record<string, unknown>>): string {
  return Object.entries(json)
    .map(([name, value]) => `${name}: ${String(value)}`)
    .join(", ");
}

function verdictOf(status: number, reason: string | undefined, clean: boolean | undefined): string {
  if (clean === false || reason === "MCS_MEDIA_NOT_CLEAN") return "not clean";
  return status === 200 ? "clean" : "-";
}
