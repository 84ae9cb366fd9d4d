/** The gateway before a real Synapse: what either of them answers to the same user is the same, but for what no user may have. */
import { randomBytes } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { BASE_PATH } from "../../src/http/app.ts";
import { buildCanary, EICAR } from "../../src/scan/canary-samples.ts";
import { encryptFile } from "../support/encrypted-file.ts";
import { startSynapse, type Synapse, type SynapseUser, type UploadedMedia } from "../support/synapse.ts";
import { png } from "./png.ts";
import { type Answer, ask, type Stack, startStack } from "./stack.ts";

const NOT_CLEAN = { reason: "MCS_MEDIA_NOT_CLEAN", info: "***VIRUS DETECTED***" };
const NOT_FOUND = { reason: "M_NOT_FOUND", info: "The media was not found" };
const FETCH_FAILED = { reason: "MCS_MEDIA_REQUEST_FAILED", info: "The media could not be fetched from the homeserver" };
const DOWNLOAD = "/_matrix/client/v1/media/download";

let stack: Stack;
let synapse: Synapse;
/** A server that the first one federates with. */
let other: Synapse;
let alice: SynapseUser;
/** In no room with alice. */
let bob: SynapseUser;
let carol: SynapseUser;

beforeAll(async () => {
  [stack, other] = await Promise.all([
    startStack({
      synapse: { settings: { remote_media_download_per_second: "1K", remote_media_download_burst_count: "3M" } },
      gateway: { scan: { blocked_mimetypes: ["application/pdf"] }, download: { headers_to_forward: ["x-forwarded-for"] } },
    }),
    startSynapse(),
  ]);
  synapse = stack.synapse;
  [alice, bob, carol] = await Promise.all([synapse.registerUser("alice"), synapse.registerUser("bob"), other.registerUser("carol")]);
});
afterAll(async () => {
  await stack[Symbol.asyncDispose]();
  await other.stop();
});

function get(path: string, token?: string): Promise<Answer> {
  return ask(`${stack.gateway.url}${BASE_PATH}/${path}`, { token });
}

function post(path: string, body: object, token?: string): Promise<Answer> {
  return ask(`${stack.gateway.url}${BASE_PATH}/${path}`, { token, body });
}

/** 2.5 MB, of which Synapse knows nothing yet. */
async function downloadFromAfar(address: string): Promise<Answer> {
  const { path } = await other.upload(carol.token, randomBytes(2_500_000));
  const headers = { "x-forwarded-for": address };
  return ask(`${stack.gateway.url}${BASE_PATH}/download/${path}`, { token: bob.token, headers });
}

const outcome = ({ status, json }: Answer): [number, unknown] => [status, json];

describe("media of the homeserver", () => {
  it("clean media passes as Synapse has it, to whoever Synapse gives it to", async () => {
    const bytes = Buffer.from("An honest text.\n");
    const media = await synapse.upload(alice.token, bytes, { contentType: "text/plain", name: 'né "1".txt' });
    const guest = await synapse.registerGuest();
    for (const [who, token] of Object.entries({ alice: alice.token, "bob, of no common room": bob.token, "a guest": guest.token })) {
      const itself = await synapse.request("GET", `${DOWNLOAD}/${media.path}`, { token });
      const answer = await get(`download/${media.path}`, token);
      expect([answer.status, answer.body.toString()], who).toEqual([itself.status, itself.body.toString()]);
      expect(answer.headers.get("content-type"), who).toBe(itself.headers.get("content-type"));
      expect(answer.headers.get("content-disposition"), who).toMatch(/^inline; filename=.*; filename\*=UTF-8''n%C3%A9%20%221%22\.txt$/);
      expect(outcome(await get(`scan/${media.path}`, token)), who).toEqual([200, { clean: true, info: "File is clean" }]);
    }
  });

  it("media of no bytes, and of 40 MB", async () => {
    for (const bytes of [Buffer.alloc(0), randomBytes(40_000_000)]) {
      const { path } = await synapse.upload(alice.token, bytes);
      for (const round of ["scanned", "known"]) {
        const answer = await get(`download/${path}`, bob.token);
        expect([answer.status, answer.body.equals(bytes)], round).toEqual([200, true]);
      }
    }
  });

  it("EICAR does not pass: plain, in a zip, encrypted", async () => {
    for (const bytes of [EICAR, buildCanary("zip").bytes]) {
      const { path } = await synapse.upload(alice.token, bytes, { contentType: "image/png" });
      for (const token of [alice.token, bob.token]) expect(outcome(await get(`download/${path}`, token))).toEqual([403, NOT_CLEAN]);
      expect(outcome(await get(`scan/${path}`, bob.token))).toEqual([200, { clean: false, info: NOT_CLEAN.info }]);
      const { ciphertext, file } = await encryptFile(bytes);
      const body = { file: file((await synapse.upload(alice.token, ciphertext)).path) };
      expect(outcome(await post("scan_encrypted", body, bob.token))).toEqual([200, { clean: false, info: NOT_CLEAN.info }]);
      expect(outcome(await post("download_encrypted", body, bob.token))).toEqual([403, NOT_CLEAN]);
    }
  });

  it("encrypted clean media passes as ciphertext", async () => {
    const { ciphertext, file } = await encryptFile(randomBytes(3_000_000));
    const body = { file: file((await synapse.upload(alice.token, ciphertext)).path) };
    const answer = await post("download_encrypted", body, bob.token);
    expect([answer.status, answer.body.equals(ciphertext)]).toEqual([200, true]);
    expect(outcome(await post("scan_encrypted", body, bob.token))).toEqual([200, { clean: true, info: "File is clean" }]);
  });

  it("a type that the operator has forbidden is refused as such", async () => {
    const { path } = await synapse.upload(alice.token, Buffer.from("%PDF-1.7\n%âãÏÓ\n"), { contentType: "image/png" });
    const forbidden = [403, { reason: "MCS_MIME_TYPE_FORBIDDEN", info: "Media of this type is not allowed" }];
    expect(outcome(await get(`download/${path}`, bob.token))).toEqual(forbidden);
    expect(outcome(await get(`scan/${path}`, bob.token))).toEqual(forbidden);
  });

  it("thumbnails are Synapse's", async () => {
    const image = await synapse.upload(alice.token, png(200), { contentType: "image/png" });
    for (const query of ["width=96&height=96&method=crop", "width=320&height=240&method=scale", "width=32&height=32&method=crop"]) {
      const itself = await synapse.request("GET", `/_matrix/client/v1/media/thumbnail/${image.path}?${query}`, { token: bob.token });
      const answer = await get(`thumbnail/${image.path}?${query}`, bob.token);
      expect([answer.status, answer.body.equals(itself.body)], query).toEqual([200, true]);
      expect(answer.headers.get("content-type")).toBe(itself.headers.get("content-type"));
    }
    expect((await get(`thumbnail/${image.path}`, bob.token)).status).toBe(200);
    const text = await synapse.upload(alice.token, Buffer.from("no image"), { contentType: "text/plain" });
    expect((await get(`thumbnail/${text.path}?width=96&height=96`, bob.token)).json).toHaveProperty("reason");
  });

  it("media that is still to come is 504, and comes when it is there", async () => {
    const media = await synapse.createMedia(alice.token);
    const answer = await get(`download/${media.path}`, bob.token);
    expect(outcome(answer)).toEqual([504, { reason: "M_UNKNOWN", info: "The media has not been uploaded yet" }]);
    await media.complete(Buffer.from("late"));
    expect((await get(`download/${media.path}`, bob.token)).body.toString()).toBe("late");
  });

  it("encrypted media that is taken away is 404 as well, and keeps its verdict for those who hold its key", async () => {
    for (const size of [500, 3_000_000]) {
      const { ciphertext, file } = await encryptFile(randomBytes(size));
      const media = await synapse.upload(alice.token, ciphertext);
      const body = { file: file(media.path) };
      expect((await post("download_encrypted", body, bob.token)).body.equals(ciphertext)).toBe(true);
      await synapse.quarantine(media);
      expect(outcome(await post("download_encrypted", body, bob.token))).toEqual([404, NOT_FOUND]);
      expect((await post("scan_encrypted", body)).json).toEqual({ clean: true, info: "File is clean" });
    }
  });

  it("known media that Synapse gives to nobody any more is 404: quarantined, deleted", async () => {
    const quarantine = (media: UploadedMedia): Promise<void> => synapse.quarantine(media);
    const remove = (media: UploadedMedia): Promise<void> => synapse.deleteMedia(media);
    for (const takeAway of [quarantine, remove]) {
      const small = await synapse.upload(alice.token, randomBytes(500));
      const large = await synapse.upload(alice.token, randomBytes(3_000_000));
      for (const media of [small, large]) {
        expect((await get(`download/${media.path}`, bob.token)).status).toBe(200);
        await takeAway(media);
        expect(outcome(await get(`download/${media.path}`, bob.token))).toEqual([404, NOT_FOUND]);
        expect(outcome(await get(`scan/${media.path}`, bob.token))).toEqual([404, NOT_FOUND]);
      }
    }
    expect(outcome(await get(`download/${synapse.serverName}/neverThere`, bob.token))).toEqual([404, NOT_FOUND]);
  });
});

describe("tokens", () => {
  let media: UploadedMedia;

  beforeAll(async () => {
    media = await synapse.upload(alice.token, randomBytes(500));
    expect((await get(`download/${media.path}`, alice.token)).status).toBe(200);
  });

  it("without one, media is frozen: 404, known or not", async () => {
    expect(outcome(await get(`download/${media.path}`))).toEqual([404, NOT_FOUND]);
    expect(outcome(await get(`scan/${media.path}`))).toEqual([404, NOT_FOUND]);
  });

  it("one that Synapse doesn't know", async () => {
    const body = { errcode: "M_UNKNOWN_TOKEN", error: "Invalid access token passed.", soft_logout: false };
    expect(outcome(await get(`download/${media.path}`, "syt_unknown"))).toEqual([401, { ...body, ...UNKNOWN_TOKEN }]);
  });

  it("one that has expired says so, so that its client refreshes it; the new one is good until its user logs out", async () => {
    const device = await synapse.logInForRefresh(bob);
    const body = { errcode: "M_UNKNOWN_TOKEN", error: "Access token has expired", soft_logout: true };
    const until = { timeout: 30_000, interval: 250 };
    await expect
      .poll(async () => outcome(await get(`download/${media.path}`, device.token)), until)
      .toEqual([401, { ...body, ...UNKNOWN_TOKEN }]);
    const token = await synapse.refresh(device);
    expect((await get(`download/${media.path}`, token)).status).toBe(200);
    await synapse.logOut(token);
    expect((await get(`download/${media.path}`, token)).json).toMatchObject({ errcode: "M_UNKNOWN_TOKEN", soft_logout: false });
  });
});

describe("X-Forwarded-For, where the operator has it forwarded", () => {
  it("has Synapse note the client's address, not the gateway's", async () => {
    const dave = await synapse.registerUser("dave");
    const { path } = await synapse.upload(alice.token, randomBytes(100));
    const headers = { "x-forwarded-for": "192.0.2.7" };
    expect((await ask(`${stack.gateway.url}${BASE_PATH}/download/${path}`, { token: dave.token, headers })).status).toBe(200);
    await expect.poll(() => synapse.lastSeenAddress(dave), { timeout: 30_000, interval: 500 }).toBe("192.0.2.7");
  });
});

const UNKNOWN_TOKEN = { reason: "M_UNKNOWN_TOKEN", info: "The homeserver does not know this access token" };

describe("media of another server", () => {
  it("passes, or does not, like the homeserver's own", async () => {
    const clean = await other.upload(carol.token, Buffer.from("from afar"), { contentType: "text/plain" });
    expect((await get(`download/${clean.path}`, bob.token)).body.toString()).toBe("from afar");
    const infected = await other.upload(carol.token, EICAR);
    expect(outcome(await get(`download/${infected.path}`, bob.token))).toEqual([403, NOT_CLEAN]);
    expect(outcome(await get(`download/${other.serverName}/neverThere`, bob.token))).toEqual([404, NOT_FOUND]);
    expect(outcome(await get(`download/127.0.0.1:9/unreachable`, bob.token))).toEqual([502, FETCH_FAILED]);
  });

  it("Synapse's rate limit, which names no delay here, becomes one in the form that clients honour; with X-Forwarded-For it counts for each address", async () => {
    expect((await downloadFromAfar("192.0.2.1")).status).toBe(200);
    const answer = await downloadFromAfar("192.0.2.1");
    expect(outcome(answer)).toEqual([429, { errcode: "M_LIMIT_EXCEEDED", error: "Too many requests", retry_after_ms: 2000 }]);
    expect(answer.headers.get("retry-after")).toBe("2");
    expect((await downloadFromAfar("192.0.2.2")).status).toBe(200);
  });
});

describe("Synapse ends in the middle of a download", () => {
  it.each([
    ["that is being scanned", false],
    ["of known media", true],
  ])("%s: the client gets nothing that looks whole, and all of it later", async (_, known) => {
    const bytes = randomBytes(40_000_000);
    const { path } = await synapse.upload(alice.token, bytes);
    if (known) expect((await get(`download/${path}`, bob.token)).status).toBe(200);
    const { held } = stack.relay.holdAfter(5_000_000);
    const answer = get(`download/${path}`, bob.token).then(outcome, () => "cut");
    await held;
    await synapse.kill();
    stack.relay.release();
    expect(await answer).toEqual(known ? "cut" : [502, FETCH_FAILED]);
    expect(outcome(await get(`download/${path}`, bob.token))).toEqual([502, FETCH_FAILED]);
    await synapse.restart();
    const again = await get(`download/${path}`, bob.token);
    expect([again.status, again.body.equals(bytes)]).toEqual([200, true]);
  });
});
