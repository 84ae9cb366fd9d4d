import { once } from "node:events";
import { type AddressInfo, createServer } from "node:net";
import { type TLSSocket, createServer as createTlsServer, getCACertificates, setDefaultCACertificates } from "node:tls";
import { afterEach, describe, expect, it } from "vitest";
import { Connection } from "../../../icap/client/connection.ts";
import { dial } from "../../../icap/client/dial.ts";
import { parseTarget } from "../../../icap/client/target.ts";
import { tlsIdentity } from "../../../icap/client/tls-identity.ts";
import { IcapError, IcapService, type IcapTls } from "../../../icap/index.ts";
import { startCIcap } from "../../support/peers/c-icap.ts";
import { machine } from "../../support/peers/choose-machine.ts";
import { certificates } from "../support/certificates.ts";
import { scan, until } from "../support/scan.ts";
import { tlsServer } from "../support/tls-server.ts";

const { ca, clientA, clientB } = certificates;

/** What a scan by TLS fails with. */
async function failureOf(url: string, tls: IcapTls = { ca }): Promise<IcapError> {
  await using service = new IcapService({ url, tls });
  const failure = await scan(service, "hello").catch((error: unknown) => error);
  if (!(failure instanceof IcapError)) throw new TypeError("the scan did not fail as it should", { cause: failure });
  return failure;
}

describe("ICAP over TLS", () => {
  it("scans, and keeps its connection", async () => {
    await using server = await tlsServer();
    await using service = new IcapService({ url: server.url, tls: { ca } });
    for (const body of ["hello", "again", "x".repeat(1024 * 1024)]) expect((await scan(service, body)).verdict.outcome).toBe("clean");
    expect(server.greetings).toEqual([{ name: false, client: undefined, resumed: false, protocol: "TLSv1.3" }]);
    expect(server.requests[0]).toMatch(`OPTIONS icaps://127.0.0.1:${server.port}/scan ICAP/1.0\r\n`);
    expect(server.requests[1]).toMatch(`RESPMOD icaps://127.0.0.1:${server.port}/scan ICAP/1.0\r\n`);
  });

  it.each([
    ["the URL's host", "localhost", undefined, "localhost"],
    ["another name, if one is set", "127.0.0.1", "av.example.test", "av.example.test"],
    ["a name with its final dot, asked for without", "127.0.0.1", "av.example.test.", "av.example.test"],
    ["no name, by address", "127.0.0.1", undefined, false],
    ["no name, if an address is set", "localhost", "::1", false],
  ])("asks by SNI for %s", async (_, host, serverName, name) => {
    await using server = await tlsServer();
    await using service = new IcapService({
      url: `icaps://${host}:${server.port}/scan`,
      tls: { ca, ...(serverName !== undefined && { serverName }) },
    });
    expect((await scan(service, "hello")).verdict.outcome).toBe("clean");
    expect(server.greetings.map((greeting) => greeting.name)).toEqual([name]);
  });

  it("believes the authorities that Node.js does where none is set, read when the service is made", async () => {
    const before = getCACertificates("default");
    await using server = await tlsServer();
    setDefaultCACertificates([...before, ca]);
    try {
      await using service = new IcapService({ url: server.url });
      expect((await scan(service, "hello")).verdict.outcome).toBe("clean");
    } finally {
      setDefaultCACertificates(before);
    }
    expect((await failureOf(server.url, {})).code).toBe("connect_failed");
  });

  it("counts as sent only what the system has taken", async () => {
    let peer: TLSSocket | undefined;
    const server = createTlsServer(certificates.server, (socket) => (peer = socket)).listen(0, "127.0.0.1");
    await once(server, "listening");
    const target = parseTarget(`icaps://127.0.0.1:${(server.address() as AddressInfo).port}`);
    const signal = new AbortController().signal;
    const connection = new Connection(await dial(target, { timeout: 5_000, identity: tlsIdentity(target, { ca }) }, signal));
    try {
      let drained = false;
      connection.serve({ data: () => undefined, drained: () => (drained = true), gone: () => undefined, late: () => undefined });
      expect(connection.write([Buffer.alloc(64 * 1024 * 1024)])).toBe(false);
      await until(() => peer !== undefined && peer.readableLength > 0);
      expect({ flushed: connection.flushed, drained }).toEqual({ flushed: false, drained: false });
      peer?.resume();
      await until(() => drained);
      expect(connection.flushed).toBe(true);
    } finally {
      connection.destroy();
      peer?.destroy();
      server.close();
    }
  });
});

describe("a certificate is checked", () => {
  const insecure = "NODE_TLS_REJECT_UNAUTHORIZED";
  afterEach(() => {
    delete process.env[insecure];
  });

  it.each([
    ["of an unknown authority", {}, {}, /UNABLE_TO_VERIFY_LEAF_SIGNATURE|UNABLE_TO_GET_ISSUER_CERT_LOCALLY/],
    ["that has expired", certificates.expired, { ca }, /CERT_HAS_EXPIRED/],
    ["for another name", {}, { ca, serverName: "other.example.test" }, /ERR_TLS_CERT_ALTNAME_INVALID/],
    ["for another address", {}, { ca, serverName: "127.0.0.2" }, /ERR_TLS_CERT_ALTNAME_INVALID/],
    ["that is a client's", clientA, { ca }, /INVALID_PURPOSE|ERR_TLS_CERT_ALTNAME_INVALID/],
  ] as const)("one %s fails the connection, and nothing is sent", async (_, served, tls, code) => {
    // Which no environment variable changes.
    process.env[insecure] = "0";
    await using server = await tlsServer(served);
    const failure = await failureOf(server.url, tls);
    expect(failure).toMatchObject({ code: "connect_failed", cause: { code: expect.stringMatching(code) as unknown } });
    expect(failure.message).toMatch(new RegExp(`^cannot connect to 127\\.0\\.0\\.1:${server.port}: (${code.source})$`));
    // What the server says of itself is not passed on.
    expect(JSON.stringify(failure.cause) + String(failure.cause)).not.toContain("av.example");
    await until(() => server.count.open === 0);
    expect(server.requests).toEqual([]);
  });
});

describe("a handshake that fails is a failure to connect", () => {
  it.each([
    ["speaks TLS 1.1 at most", { minVersion: "TLSv1", maxVersion: "TLSv1.1", ciphers: "DEFAULT@SECLEVEL=0" }, { ca }],
    ["speaks TLS 1.2 where 1.3 is asked for", { maxVersion: "TLSv1.2" }, { ca, minVersion: "TLSv1.3" }],
    ["wants a client's certificate, by TLS 1.2", { ca, requestCert: true, maxVersion: "TLSv1.2" }, { ca }],
    ["wants a client's certificate, by TLS 1.3", { ca, requestCert: true }, { ca }],
    ["wants one of another authority", { ca: certificates.expired.cert, requestCert: true, maxVersion: "TLSv1.2" }, { ca, ...clientA }],
  ] as const)("with a server that %s", async (_, options, tls) => {
    await using server = await tlsServer(options);
    const failure = await failureOf(server.url, tls);
    expect(failure.code).toBe("connect_failed");
    expect(failure.message).toMatch(/: [A-Z0-9_/]+$/);
    expect(failure.cause).toBeInstanceOf(Error);
    await until(() => server.count.open === 0);
    expect(server.requests).toEqual([]);
  });

  it.each([
    ["speaks no TLS", "ICAP/1.0 400 <b>no</b>\r\n\r\n", /ERR_SSL_/],
    ["closes at once", "", /ECONNRESET/],
  ])("with a server that %s", async (_, greeting, code) => {
    const server = createServer((socket) => {
      socket.on("error", () => socket.destroy());
      socket.end(greeting);
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    try {
      const failure = await failureOf(`icaps://127.0.0.1:${(server.address() as AddressInfo).port}/scan`);
      expect(failure.code).toBe("connect_failed");
      expect(failure.message).toMatch(code);
      expect(failure.message).not.toContain("<b>");
    } finally {
      server.close();
    }
  });
});

describe("two services of one server", () => {
  it("come each as itself, on every connection, with no session between them", async () => {
    await using server = await tlsServer({ ca, requestCert: true });
    await using a = new IcapService({ url: server.url, tls: { ca, ...clientA } });
    await using b = new IcapService({ url: server.url, tls: { ca, ...clientB } });
    for (let round = 0; round < 3; round++) {
      const before = server.greetings.length;
      await Promise.all([1, 2, 3].map(() => scan(a, "hello")));
      const ofA = server.greetings.slice(before);
      await Promise.all([1, 2, 3].map(() => scan(b, "hello")));
      const ofB = server.greetings.slice(before + ofA.length);
      if (round === 0) expect([ofA.length, ofB.length]).toEqual([3, 3]);
      expect(new Set(ofA.map(({ client }) => client))).toEqual(new Set(ofA.length === 0 ? [] : ["client-a"]));
      expect(new Set(ofB.map(({ client }) => client))).toEqual(new Set(ofB.length === 0 ? [] : ["client-b"]));
    }
    expect(server.greetings.some(({ resumed }) => resumed)).toBe(false);
  });
});

describe("TLS settings that can't be used are refused when the service is made", () => {
  const half = clientA.cert.slice(0, 200);
  it.each([
    ["a CA that is none", { ca: "nonsense" }],
    ["a CA of which the second certificate is cut off", { ca: ca + half }],
    ["a CA that is not what it says", { ca: ca.replace(/\n[A-Za-z0-9+/]{64}\n/, "\n") }],
    ["a key in the place of the CA", { ca: clientA.key }],
    ["an empty CA", { ca: "" }],
    ["a certificate without its key", { cert: clientA.cert }],
    ["a key without its certificate", { key: clientA.key }],
    ["somebody else's key", { cert: clientA.cert, key: clientB.key }],
    ["a key that is none", { cert: clientA.cert, key: "nonsense" }],
    ["a certificate that is none", { cert: "nonsense", key: clientA.key }],
    ["a name that is none", { serverName: "a b" }],
    ["an empty name", { serverName: "" }],
    ["TLS 1.1", { minVersion: "TLSv1.1" as "TLSv1.2" }],
  ])("%s", (_, tls) => {
    expect(() => new IcapService({ url: "icaps://av.example/x", tls })).toThrow(TypeError);
  });

  it("and so are those that would go unheeded, in the clear", () => {
    expect(() => new IcapService({ url: "icap://av.example/x", tls: { ca } })).toThrow(TypeError);
  });

  it("without a word of the key", () => {
    const key = clientA.key.replace("PRIVATE", "SECRET");
    const words = key.split("\n").filter((line) => line.length > 10);
    const failure = ((): unknown => {
      try {
        return new IcapService({ url: "icaps://av.example/x", tls: { cert: clientA.cert, key } });
      } catch (error) {
        return error;
      }
    })();
    expect(failure).toBeInstanceOf(TypeError);
    for (const word of words) expect(`${String(failure)} ${String((failure as Error).cause)}`).not.toContain(word);
  });
});

describe("a real c-icap behind TLS", () => {
  it("takes the client that has a certificate, and no other", async () => {
    const where = await machine();
    const at = await where.freePort();
    const directory = await where.makeDirectory();
    await where.write(`${directory}/ca.pem`, ca);
    await where.write(`${directory}/cert.pem`, certificates.server.cert);
    await where.write(`${directory}/key.pem`, certificates.server.key);
    const files = `cert=${directory}/cert.pem key=${directory}/key.pem client_ca=${directory}/ca.pem cafile=${directory}/ca.pem`;
    await using _cicap = await startCIcap({
      clamd: { socket: "/nowhere/clamd.sock" },
      settings: { TlsPort: `${at.listen}:${at.inside} ${files}` },
    });
    const url = `icaps://${at.host}:${at.outside}/echo`;
    await using service = new IcapService({ url, tls: { ca, ...clientA, serverName: "localhost" } });
    const sizes = [0, 1, 1024, 65_536];
    for (const size of sizes) expect((await scan(service, Buffer.alloc(size, "abc"))).verdict.outcome, `${size} bytes`).toBe("clean");
    expect((await failureOf(url, { ca, serverName: "localhost" })).code).toMatch(/connect_failed|closed_early/);
    expect((await failureOf(url, { ca, ...clientA, serverName: "other.example.test" })).code).toBe("connect_failed");
    await where.remove(directory);
  });
});
