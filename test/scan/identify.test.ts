import { describe, expect, it } from "vitest";
import { FakeScanner } from "../support/fake-scanner.ts";
import { startHarness, TOKEN } from "../support/harness.ts";

const MEDIA = Buffer.from("a file");

describe("a scanner that is to be told who asks", () => {
  it("hears whose token it is, the client's address and the homeserver's", async () => {
    const scanner = new FakeScanner("dlp", { identities: ["user", "client_ip", "server_ip"] });
    await using gateway = await startHarness({ scanners: [scanner] });
    expect((await gateway.get(`download/${gateway.put(MEDIA)}`, TOKEN)).status).toBe(200);
    const user = `@${TOKEN}:${gateway.homeserver.serverName}`;
    expect(scanner.told).toEqual([{ user, clientAddress: "127.0.0.1", serverAddress: "127.0.0.1" }]);
  });

  it("hears no more than it is set to, and the homeserver is not asked for what nobody wants to know", async () => {
    const scanner = new FakeScanner("dlp", { identities: ["client_ip"] });
    await using gateway = await startHarness({ scanners: [scanner, new FakeScanner("antivirus")] });
    expect((await gateway.get(`download/${gateway.put(MEDIA)}`, TOKEN)).status).toBe(200);
    expect(scanner.told).toEqual([{ clientAddress: "127.0.0.1" }]);
    expect(gateway.homeserver.requests.map(({ path }) => path)).not.toContainEqual(expect.stringContaining("whoami"));
  });

  it("a token that the homeserver does not know gets nothing, and nothing is scanned", async () => {
    const scanner = new FakeScanner("dlp", { identities: ["user"] });
    await using gateway = await startHarness({ scanners: [scanner] });
    const answer = await gateway.get(`download/${gateway.put(MEDIA)}`, "mallory");
    expect([answer.status, answer.json["errcode"]]).toEqual([401, "M_UNKNOWN_TOKEN"]);
    expect(scanner.begun).toBe(0);
  });

  it("a homeserver that does not say whose token it is keeps media from a scanner that decides by it", async () => {
    const scanner = new FakeScanner("dlp", { identities: ["user"] });
    await using gateway = await startHarness({ scanners: [scanner] });
    gateway.homeserver.whoami = () => ({});
    expect((await gateway.get(`download/${gateway.put(MEDIA)}`, TOKEN)).status).toBe(502);
    expect(scanner.begun).toBe(0);
  });

  it("but not from others, where only advice wants to know", async () => {
    const adviser = new FakeScanner("dlp", { required: false, identities: ["user", "client_ip"] });
    await using gateway = await startHarness({ scanners: [new FakeScanner("antivirus"), adviser] });
    gateway.homeserver.whoami = () => ({});
    expect((await gateway.get(`download/${gateway.put(MEDIA)}`, TOKEN)).status).toBe(200);
    await expect.poll(() => adviser.told).toEqual([{ clientAddress: "127.0.0.1" }]);
  });
});
