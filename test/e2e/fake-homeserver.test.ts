/** The fake homeserver of the other tests is no fantasy: asked the same, it answers as Synapse does. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { FakeHomeserver } from "../support/fake-homeserver.ts";
import { startSynapse, type Synapse } from "../support/synapse.ts";
import { png } from "./png.ts";
import { type Answer, ask } from "./stack.ts";

/** Headers that tell nothing of the media. */
const SERVERS_OWN = ["date", "server", "connection", "keep-alive"];

interface Place {
  readonly url: string;
  /** `server/media`. */
  readonly media: Readonly<Record<string, string>>;
  readonly tokens: Readonly<Record<string, string>>;
}

let synapse: Synapse;
let fake: FakeHomeserver;
let real: Place;
let imitation: Place;

beforeAll(async () => {
  [synapse, fake] = await Promise.all([startSynapse(), FakeHomeserver.start()]);
  const alice = await synapse.registerUser("alice");
  const upload = async (bytes: Uint8Array, contentType: string, name = ""): Promise<string> =>
    (await synapse.upload(alice.token, bytes, { contentType, name })).path;
  const image = png(200);
  const paths = {
    text: await upload(Buffer.from("text"), "text/plain", "a.txt"),
    html: await upload(Buffer.from("<p>"), "text/html", 'né "1".html'),
    image: await upload(image, "image/png"),
    bytes: await upload(Buffer.from([1, 2, 3]), "application/octet-stream"),
    empty: await upload(Buffer.alloc(0), "application/octet-stream"),
    pending: (await synapse.createMedia(alice.token)).path,
    missing: `${synapse.serverName}/neverThere`,
  };
  const refreshable = await synapse.logInForRefresh(alice);
  real = { url: synapse.url, media: paths, tokens: { valid: alice.token, expired: refreshable.token } };

  fake.addToken("valid");
  fake.addToken("expired", "expired");
  fake.put("text", { bytes: Buffer.from("text"), contentType: "text/plain; charset=UTF-8", contentDisposition: "inline; filename=a.txt" });
  fake.put("html", {
    bytes: Buffer.from("<p>"),
    contentType: "text/html; charset=UTF-8",
    contentDisposition: "attachment; filename*=utf-8''n%C3%A9%20%221%22.html",
  });
  fake.put("image", { bytes: image, contentType: "image/png", thumbnail: { bytes: image, contentType: "image/png" } });
  fake.put("bytes", { bytes: Buffer.from([1, 2, 3]) });
  fake.put("empty", { bytes: Buffer.alloc(0) });
  fake.put("pending", { bytes: Buffer.alloc(0), pending: true });
  const media = Object.fromEntries(Object.keys(paths).map((name) => [name, `${fake.serverName}/${name}`]));
  imitation = { url: fake.url, media, tokens: { valid: "valid", expired: "expired" } };
});
afterAll(async () => {
  await synapse.stop();
  await fake[Symbol.asyncDispose]();
});

const DOWNLOAD = "/_matrix/client/v1/media/download";
const THUMBNAIL = "/_matrix/client/v1/media/thumbnail";

describe("the fake homeserver answers as Synapse does", () => {
  it.each<[what: string, path: (media: Place["media"]) => string, token?: string]>([
    ["text", ({ text }) => `${DOWNLOAD}/${text}`, "valid"],
    ["HTML with a name that is not ASCII", ({ html }) => `${DOWNLOAD}/${html}`, "valid"],
    ["an image", ({ image }) => `${DOWNLOAD}/${image}`, "valid"],
    ["bytes of no type", ({ bytes }) => `${DOWNLOAD}/${bytes}`, "valid"],
    ["nothing at all", ({ empty }) => `${DOWNLOAD}/${empty}`, "valid"],
    ["no such media", ({ missing }) => `${DOWNLOAD}/${missing}`, "valid"],
    ["media that is still to come", ({ pending }) => `${DOWNLOAD}/${pending}?timeout_ms=1`, "valid"],
    ["a thumbnail of media still to come", ({ pending }) => `${THUMBNAIL}/${pending}?width=32&height=32&timeout_ms=1`, "valid"],
    ["a thumbnail without a width", ({ image }) => `${THUMBNAIL}/${image}?height=32`, "valid"],
    ["a thumbnail with a width that is none", ({ image }) => `${THUMBNAIL}/${image}?height=32&width=x`, "valid"],
    ["a thumbnail of what is no image", ({ text }) => `${THUMBNAIL}/${text}?height=32&width=32`, "valid"],
    ["no token", ({ text }) => `${DOWNLOAD}/${text}`],
    ["an unknown token", ({ text }) => `${DOWNLOAD}/${text}`, "unknown"],
    ["frozen media, v3", ({ text }) => `/_matrix/media/v3/download/${text}`],
    ["frozen media, r0", ({ text }) => `/_matrix/media/r0/download/${text}`],
    ["frozen media, v1", ({ text }) => `/_matrix/media/v1/download/${text}`],
    ["the media configuration", () => "/_matrix/client/v1/media/config", "valid"],
    ["the media configuration, as it was", () => "/_matrix/media/v3/config", "valid"],
    ["the media configuration without a token", () => "/_matrix/client/v1/media/config"],
    ["the media configuration with an unknown token", () => "/_matrix/media/r0/config", "unknown"],
    ["no such endpoint", () => "/_matrix/client/v1/media/nothing", "valid"],
  ])("%s", async (_, path, token) => {
    const [expected, given] = await Promise.all(
      [real, imitation].map(async ({ url, media, tokens }) => {
        const answer = await ask(`${url}${path(media)}`, { token: token === undefined ? undefined : (tokens[token] ?? token) });
        return comparable(answer, media);
      }),
    );
    expect(given).toEqual(expected);
  });

  it("a thumbnail", async () => {
    const [expected, given] = await Promise.all(
      [real, imitation].map(async ({ url, media, tokens }) => {
        const answer = await ask(`${url}${THUMBNAIL}/${media["image"]}?width=32&height=32&method=crop`, { token: tokens["valid"] });
        return { status: answer.status, headers: { ...comparable(answer, media).headers, "content-length": "some" } };
      }),
    );
    expect(given).toEqual(expected);
  });

  it("an expired token", async () => {
    const answer = (): Promise<Answer> => ask(`${real.url}${DOWNLOAD}/${real.media["text"]}`, { token: real.tokens["expired"] });
    await expect.poll(async () => (await answer()).status, { timeout: 30_000, interval: 250 }).toBe(401);
    const given = await ask(`${imitation.url}${DOWNLOAD}/${imitation.media["text"]}`, { token: "expired" });
    expect(comparable(given, imitation.media)).toEqual(comparable(await answer(), real.media));
  });
});

function comparable({ status, headers, body, json }: Answer, media: Place["media"]): { status: number; headers: object; body: unknown } {
  const told = [...headers].filter(([name]) => !SERVERS_OWN.includes(name));
  // An error may name the media.
  const text = Object.entries(media).reduce((all, [name, path]) => all.replaceAll(path, name), body.toString("latin1"));
  return { status, headers: Object.fromEntries(told), body: json === undefined ? text : JSON.parse(text) };
}
