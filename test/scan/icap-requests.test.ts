import { describe, expect, it } from "vitest";
import type { IcapHandler, IcapRequest, IcapServiceOptions } from "../../icap/index.ts";
import { GatewayError } from "../../src/errors.ts";
import { EICAR } from "../../src/scan/canary-samples.ts";
import type { IcapScannerOptions } from "../../src/scan/icap-scanner.ts";
import type { Replacement, ScanSubject } from "../../src/scan/scanner.ts";
import { scriptedServer } from "../icap/support/scripted-server.ts";
import { Antivirus, once, scannerOf, subject } from "../support/antivirus.ts";

const SIGNAL = new AbortController().signal;
const MEDIA = Buffer.from("some media");
const MEBIBYTE = 1024 * 1024;
const SOON = { timeout: 20_000 };

const TOLD = {
  clientIp: "always",
  serverIp: "never",
  user: "always",
  userHeader: "X-Authenticated-User",
  userFormat: "{localpart}",
  userEncoding: "plain",
} as const;

/** The last request with the media in it. */
function mediaRequest(antivirus: Antivirus, media = MEDIA): IcapRequest | undefined {
  return antivirus.asked[antivirus.seen.findLastIndex((body) => body.equals(media))];
}

async function policyOf(service: Partial<IcapServiceOptions>, more: Partial<IcapScannerOptions> = {}): Promise<string> {
  const services = [{ url: "icap://127.0.0.1:1/scan", timeouts: { connect: 1 }, ...service }];
  const { scanner } = await scannerOf([], { services, ...more });
  return scanner.policy;
}

/** Says of all that is larger that it is clean. */
function blindAbove(antivirus: Antivirus, size: number): void {
  antivirus.before = (body) => void (antivirus.blind = body.length > size);
}

function media(size: number): ScanSubject {
  return subject(Buffer.concat([EICAR, Buffer.alloc(size - EICAR.length)]));
}

describe("what an ICAP service is told", () => {
  it("is nothing but the bytes by default, whatever is known of them and of who asks", async () => {
    await using antivirus = new Antivirus();
    const { scanner } = await scannerOf([await antivirus.start()]);
    const type = { mime: "image/png", extension: "png" };
    await scanner.scan({ ...subject(MEDIA), type, context: { clientAddress: "192.0.2.1", user: "@alice:example.org" } }, SIGNAL);
    const request = mediaRequest(antivirus);
    expect(request?.httpRequest?.startLine).toMatch(/\/media HTTP/);
    expect(request?.httpResponse?.headers.get("content-type")).toBe("application/octet-stream");
    expect(["x-client-ip", "x-authenticated-user"].map((name) => request?.headers.get(name))).toEqual([undefined, undefined]);
    expect([scanner.needsType, scanner.identities, scanner.required]).toEqual([false, [], true]);
  });

  it("is a name and a type that follow from the bytes, where it goes by them; for canaries too", async () => {
    await using antivirus = new Antivirus();
    const { scanner } = await scannerOf([await antivirus.start()], { describeType: true });
    expect(scanner.needsType).toBe(true);
    const names = antivirus.asked.map(({ httpRequest }) => /[^/]+(?= HTTP)/.exec(httpRequest?.startLine ?? "")?.[0]);
    expect(names).toEqual(expect.arrayContaining(["media.txt", "media.zip", "media.pdf"]));
    await scanner.scan({ ...subject(MEDIA), type: { mime: "image/png", extension: "PNG" } }, SIGNAL);
    const request = mediaRequest(antivirus);
    expect(request?.httpRequest?.startLine).toMatch(/\/media\.png HTTP/);
    expect(request?.httpResponse?.headers.get("content-type")).toBe("image/png");
    await scanner.scan({ ...subject(MEDIA), type: { mime: "a b\r\nX: 1", extension: "../x\r\n" } }, SIGNAL);
    expect(mediaRequest(antivirus)?.httpRequest?.startLine).toMatch(/\/media HTTP/);
    expect(mediaRequest(antivirus)?.httpResponse?.headers.get("content-type")).toBe("application/octet-stream");
  });

  it("is a name and a type by default where the vendor's profile goes by them", async () => {
    await using antivirus = new Antivirus();
    const url = await antivirus.start();
    const services: IcapServiceOptions[] = [{ url, profile: "vision-one" }];
    expect((await scannerOf([url], { services })).scanner.needsType).toBe(true);
    expect((await scannerOf([url], { services, describeType: false })).scanner.needsType).toBe(false);
  });

  it("is who asks, as far as it is set to be told; canaries ask for nobody", async () => {
    await using antivirus = new Antivirus();
    const { scanner } = await scannerOf([await antivirus.start()], { context: TOLD });
    expect(scanner.identities).toEqual(["client_ip", "user"]);
    await scanner.scan(
      { ...subject(MEDIA), context: { clientAddress: "192.0.2.1", serverAddress: "192.0.2.2", user: "@al\nice:x" } },
      SIGNAL,
    );
    const { headers } = mediaRequest(antivirus) ?? {};
    expect(["x-client-ip", "x-server-ip", "x-authenticated-user"].map((name) => headers?.get(name))).toEqual([
      "192.0.2.1",
      undefined,
      "al%0Aice",
    ]);
    expect(antivirus.asked.filter((request) => request.headers.get("x-client-ip") !== undefined)).toHaveLength(1);
  });

  it("is who asks only if it asks for that by X-Include", async () => {
    const heads: string[] = [];
    let include = "X-Client-IP";
    await using server = await scriptedServer({
      options: () =>
        `ICAP/1.0 200 OK\r\nMethods: RESPMOD\r\nISTag: "t"\r\nX-Include: ${include}\r\nOptions-TTL: 1\r\nEncapsulated: null-body=0\r\n\r\n`,
      complete: ({ socket, received }) => {
        heads.push(received());
        socket.write("ICAP/1.0 204 OK\r\n\r\n");
      },
    });
    const context = { ...TOLD, clientIp: "asked", user: "asked" } as const;
    const { scanner } = await scannerOf([server.url], { canaries: [], context });
    const asker = { clientAddress: "192.0.2.1", user: "@alice:example.org" };
    await scanner.scan({ ...subject(MEDIA), context: asker }, SIGNAL);
    expect(heads.at(-1)).toContain("X-Client-IP: 192.0.2.1\r\n");
    expect(heads.at(-1)).not.toContain("X-Authenticated-User");
    include = "X-Authenticated-User";
    const next = async (): Promise<string | undefined> => {
      await scanner.scan({ ...subject(MEDIA), context: asker }, SIGNAL);
      return heads.at(-1);
    };
    await expect.poll(next, SOON).toContain("X-Authenticated-User: alice\r\n");
    expect(heads.at(-1)).not.toContain("X-Client-IP");
  });

  it("can't name the user in a field that is not for that", async () => {
    await expect(scannerOf(["icap://127.0.0.1:1/x"], { context: { ...TOLD, userHeader: "Encapsulated" } })).rejects.toThrow(TypeError);
  });
});

describe("the policy of a scanner", () => {
  it("names all that shapes its verdicts, and not where it runs", async () => {
    const policies = [
      await policyOf({}),
      await policyOf({ url: "icap://127.0.0.1:1/scan?force=on" }),
      await policyOf({ url: "icap://127.0.0.1:1/other" }),
      await policyOf({ profile: "c-icap" }),
      await policyOf({ method: "REQMOD" }),
      await policyOf({ preview: "trusted" }),
      await policyOf({ transferLists: "trusted" }),
      await policyOf({ blockedBy: ["X-Nope"] }),
      await policyOf({ credentials: { username: "strict", password: "x" } }),
      await policyOf({}, { describeType: true }),
      await policyOf({}, { canaries: ["plain"] }),
      await policyOf({}, { proveSize: true }),
      await policyOf({}, { context: TOLD }),
      await policyOf({}, { context: { ...TOLD, userFormat: "{user}" } }),
    ];
    expect(new Set(policies).size).toBe(policies.length);
    expect(await policyOf({ url: "icap://127.0.0.2:1/scan", maxConnections: 3 })).toBe(policies[0]);
    expect(await policyOf({ credentials: { username: "strict", password: "y" } })).toBe(policies[8]);
  });
});

describe("media beyond the size that a service is proven to scan", () => {
  const sized = { proveSize: true, maxFileSize: 4 * MEBIBYTE } as const;

  it("is refused, whatever it would say; smaller media is scanned", async () => {
    await using antivirus = new Antivirus();
    blindAbove(antivirus, 2 * MEBIBYTE);
    const { scanner, entries } = await scannerOf([await antivirus.start()], sized);
    await expect(scanner.scan(media(3 * MEBIBYTE), SIGNAL)).rejects.toMatchObject({
      code: "beyond_proof",
      message: expect.stringMatching(/proven to scan \d+/) as unknown,
    });
    expect(await scanner.scan(media(MEBIBYTE + 1), SIGNAL)).toMatchObject({ outcome: "infected" });
    await expect.poll(() => entries.map(({ what }) => what), SOON).toContain("size");
    const [replica] = scanner.replicas();
    expect(replica?.provenSize).toBeGreaterThan(MEBIBYTE);
    expect(replica?.provenSize).toBeLessThanOrEqual(2 * MEBIBYTE);
    expect(scanner.health()).toMatchObject({ ready: true });
    expect(scanner.health().problems.join()).toContain("MaxObjectSize");
  });

  it("is refused even if that is found out while it is scanned, and what an earlier process kept is scanned again", async () => {
    await using antivirus = new Antivirus();
    const kept = { tag: "tag-1", at: 0 };
    const [scanned, held] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    antivirus.before = (body) => void (antivirus.blind = body.length > MEBIBYTE / 2);
    antivirus.hold = async (body) => {
      if (body.length === MEBIBYTE) await scanned.promise;
      if (body.length === MEBIBYTE - 1) await held.promise;
    };
    const { scanner } = await scannerOf([await antivirus.start()], sized);
    expect(scanner.upholds(kept, "clean")).toBe(true);
    const verdict = scanner.scan(media(MEBIBYTE - 1), SIGNAL);
    const refused = expect(verdict).rejects.toMatchObject({ code: "beyond_proof" });
    await expect.poll(() => antivirus.seen.some((body) => body.length === MEBIBYTE - 1), SOON).toBe(true);
    scanned.resolve();
    await expect.poll(() => scanner.replicas()[0]?.provenSize, SOON).toBeLessThanOrEqual(MEBIBYTE / 2);
    held.resolve();
    await refused;
    expect(scanner.upholds(kept, "clean")).toBe(false);
  });

  it("goes to a replica that is proven to scan as much", async () => {
    await using small = new Antivirus();
    await using large = new Antivirus();
    blindAbove(small, 2 * MEBIBYTE);
    const { scanner } = await scannerOf([await small.start(), await large.start()], sized);
    expect(await scanner.scan(media(3 * MEBIBYTE), SIGNAL)).toMatchObject({ outcome: "infected" });
    await large[Symbol.asyncDispose]();
    // What is away could scan it; what is there can't be relied on.
    await expect(scanner.scan(media(3 * MEBIBYTE), SIGNAL)).rejects.toMatchObject({ code: "beyond_proof" });
  });

  it("is scanned where sizes are not proven: without canaries, or by choice", async () => {
    await using antivirus = new Antivirus();
    const url = await antivirus.start();
    blindAbove(antivirus, 2 * MEBIBYTE);
    for (const more of [
      { ...sized, canaries: [] },
      { ...sized, proveSize: false },
    ]) {
      const { scanner } = await scannerOf([url], more);
      expect(await scanner.scan(media(3 * MEBIBYTE), SIGNAL)).toMatchObject({ outcome: "clean" });
      expect(scanner.replicas()[0]?.provenSize).toBeUndefined();
    }
  });

  it("is proven by each machine for its own services: what only it knows by that name is shared with nobody", async () => {
    await using antivirus = new Antivirus();
    const asked: string[] = [];
    const sharedProofs = {
      recall: async (key: string) => void asked.push(key),
      remember: async (key: string) => void asked.push(key),
      lease: async (key: string) => void asked.push(key),
    };
    const { scanner } = await scannerOf([await antivirus.start()], { ...sized, sharedProofs });
    await expect.poll(() => scanner.replicas()[0]?.provenSize, SOON).toBe(4 * MEBIBYTE);
    expect(asked).toEqual([]);
  });
});

describe("what comes back in the media's stead", () => {
  class Place implements Replacement {
    readonly chunks: Buffer[] = [];
    ended = false;
    disposed = false;
    readonly #full: Error | undefined;

    constructor(full?: Error) {
      this.#full = full;
    }

    get size(): number {
      return this.chunks.reduce((sum, { length }) => sum + length, 0);
    }

    async write(bytes: Uint8Array): Promise<void> {
      if (this.#full !== undefined) throw this.#full;
      this.chunks.push(Buffer.from(bytes));
    }

    end(): void {
      this.ended = true;
    }

    open(): AsyncIterable<Uint8Array> {
      return once(Buffer.concat(this.chunks));
    }

    async [Symbol.asyncDispose](): Promise<void> {
      this.disposed = true;
    }
  }

  const CLEANED = Buffer.from("the same without its macros");

  /** Sends something else back for what is not a canary. */
  function sanitising(antivirus: Antivirus, body: Buffer = CLEANED, status = "HTTP/1.1 200 OK"): IcapHandler {
    return {
      table: { isTag: () => antivirus.tag },
      handle: async (request) => {
        const bytes = Buffer.concat(await Array.fromAsync(request.body));
        if (bytes.includes(EICAR)) return { status: 200, fields: [["X-Infection-Found", "Type=0; Resolution=2; Threat=Eicar;"]] };
        if (!bytes.equals(MEDIA)) return { status: 204 };
        return { status: 200, http: { startLine: status, fields: [["Content-Type", "text/plain"]], body } };
      },
    };
  }

  interface Offered extends ScanSubject {
    readonly places: Place[];
  }

  function offering(full?: Error): Offered {
    const places: Place[] = [];
    const replacement = async (): Promise<Place> => {
      const place = new Place(full);
      places.push(place);
      return place;
    };
    return { ...subject(MEDIA), places, replacement };
  }

  it("is handed on with the verdict, whole, for the caller to dispose of", async () => {
    await using antivirus = new Antivirus();
    antivirus.table = sanitising(antivirus);
    const { scanner } = await scannerOf([await antivirus.start()]);
    const offered = offering();
    const verdict = await scanner.scan(offered, SIGNAL);
    expect(verdict).toMatchObject({ outcome: "modified", replacement: offered.places[0] });
    expect(offered.places).toMatchObject([{ ended: true, disposed: false, chunks: [CLEANED] }]);
  });

  it("is not asked for where nobody wants it, and takes no room where nothing comes back", async () => {
    await using antivirus = new Antivirus();
    antivirus.table = sanitising(antivirus);
    const { scanner } = await scannerOf([await antivirus.start()]);
    expect(await scanner.scan(subject(MEDIA), SIGNAL)).not.toHaveProperty("replacement");
    antivirus.table = undefined;
    const offered = offering();
    expect(await scanner.scan(offered, SIGNAL)).toMatchObject({ outcome: "clean" });
    expect(offered.places).toEqual([]);
  });

  it("is given back when it turns out to be the media itself, or a block page", async () => {
    await using antivirus = new Antivirus();
    const { scanner } = await scannerOf([await antivirus.start()]);
    antivirus.table = sanitising(antivirus, MEDIA);
    const echoed = offering();
    expect(await scanner.scan(echoed, SIGNAL)).toMatchObject({ outcome: "clean" });
    expect(echoed.places).toMatchObject([{ disposed: true }]);
    antivirus.table = sanitising(antivirus, CLEANED, "HTTP/1.1 403 Forbidden");
    const blocked = offering();
    expect(await scanner.scan(blocked, SIGNAL)).not.toHaveProperty("replacement");
    expect(blocked.places.every(({ disposed }) => disposed)).toBe(true);
  });

  it("is given back when its verdict does not count, and has a place of its own each time", async () => {
    await using antivirus = new Antivirus();
    antivirus.table = sanitising(antivirus);
    const { scanner } = await scannerOf([await antivirus.start()]);
    let renewed = false;
    antivirus.before = (body) => {
      if (!body.equals(MEDIA) || renewed) return;
      renewed = true;
      antivirus.tag = "tag-2";
    };
    const offered = offering();
    const verdict = await scanner.scan(offered, SIGNAL);
    expect(verdict).toMatchObject({ outcome: "modified", stamp: { tag: "tag-2" }, replacement: offered.places[1] });
    expect(offered.places.map(({ disposed }) => disposed)).toEqual([true, false]);
  });

  it("is given back when the scan is ended while it comes", async () => {
    await using antivirus = new Antivirus();
    const { scanner } = await scannerOf([await antivirus.start()]);
    const { resolve: release, promise: held } = Promise.withResolvers<void>();
    const slow = sanitising(antivirus);
    antivirus.table = {
      ...slow,
      handle: async (request) => {
        const reply = await slow.handle(request);
        if (reply.http === undefined) return reply;
        const body = (async function* () {
          yield CLEANED;
          await held;
        })();
        return { ...reply, http: { ...reply.http, body } };
      },
    };
    const abort = new AbortController();
    const offered = offering();
    const verdict = scanner.scan(offered, abort.signal);
    await expect.poll(() => offered.places[0]?.size, SOON).toBe(CLEANED.length);
    const reason = new Error("enough");
    abort.abort(reason);
    await expect(verdict).rejects.toBe(reason);
    expect(offered.places).toMatchObject([{ disposed: true }]);
    release();
  });

  it("is given back even if its place is made only after the scan was ended", async () => {
    await using antivirus = new Antivirus();
    antivirus.table = sanitising(antivirus);
    const { scanner } = await scannerOf([await antivirus.start()]);
    const made = Promise.withResolvers<Place>();
    let wanted = false;
    const replacement = (): Promise<Place> => {
      wanted = true;
      return made.promise;
    };
    const abort = new AbortController();
    const verdict = scanner.scan({ ...subject(MEDIA), replacement }, abort.signal);
    const ended = expect(verdict).rejects.toThrow("enough");
    await expect.poll(() => wanted, SOON).toBe(true);
    abort.abort(new Error("enough"));
    await new Promise(setImmediate);
    const place = new Place();
    made.resolve(place);
    await ended;
    expect(place.disposed).toBe(true);
  });

  it("that is too large is none; what else keeps it from being written ends the scan, unless it was not needed", async () => {
    await using antivirus = new Antivirus();
    antivirus.table = sanitising(antivirus);
    const { scanner } = await scannerOf([await antivirus.start()]);
    const large = offering(new GatewayError("too_large"));
    expect(await scanner.scan(large, SIGNAL)).not.toHaveProperty("replacement");
    const noRoom = new GatewayError("no_room");
    const unlucky = offering(noRoom);
    await expect(scanner.scan(unlucky, SIGNAL)).rejects.toBe(noRoom);
    antivirus.table = sanitising(antivirus, MEDIA);
    const echoed = offering(noRoom);
    expect(await scanner.scan(echoed, SIGNAL)).toMatchObject({ outcome: "clean" });
    expect([large, unlucky, echoed].flatMap(({ places }) => places).every(({ disposed }) => disposed)).toBe(true);
    expect(scanner.replicas()).toMatchObject([{ state: "up" }]);
  });
});
