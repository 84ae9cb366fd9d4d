import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { Ajv2020 } from "ajv/dist/2020.js";
import { describe, expect, it } from "vitest";
import { Redis } from "ioredis";
import { parse } from "yaml";
import { loadConfig } from "../src/config/load.ts";
import { buildCanary } from "../src/scan/canary-samples.ts";
import { VIRUS_SCAN } from "./support/peers/c-icap.ts";
import { startRedis } from "./support/peers/redis.ts";

interface Service {
  readonly image: string;
  readonly build?: string | { readonly dockerfile: string };
  readonly user?: string;
  readonly read_only?: boolean;
  readonly cap_drop?: readonly string[];
  readonly cap_add?: readonly string[];
  readonly privileged?: boolean;
  readonly security_opt?: readonly string[];
  readonly tmpfs?: readonly string[];
  readonly mem_limit?: string;
  readonly memswap_limit?: string;
  readonly command?: readonly string[];
  readonly entrypoint?: readonly string[];
  readonly healthcheck?: unknown;
  readonly depends_on?: Readonly<Record<string, { readonly condition: string }>>;
  readonly networks?: readonly string[];
  readonly ports?: readonly string[];
  readonly volumes?: readonly (string | { readonly source: string; readonly target: string })[];
}

const root = (path: string): string => readFileSync(new URL(`../${path}`, import.meta.url), "utf8");
const file = parse(root("docker-compose.yml"), { merge: true }) as { services: Record<string, Service>; networks: Record<string, unknown> };
const services = Object.entries(file.services);
const dockerfiles = { gateway: root("docker/gateway/Dockerfile"), "c-icap": root("docker/c-icap/Dockerfile") };

const service = (name: string): Service => file.services[name] ?? expect.fail(`no service ${name}`);

/** `LINE VALUE` of ClamAV's and c-icap's configuration. */
function setting(path: string, name: string): string {
  const line = root(path)
    .split("\n")
    .find((text) => text.startsWith(`${name} `));
  return line?.slice(name.length + 1).trim() ?? expect.fail(`${path} does not set ${name}`);
}

/** Bytes of `512M`, `1536m`, `100MiB`, `4g`. */
function bytes(text: string): number {
  const [, number, unit = ""] = /^(\d+)\s*([kmg]?)(?:i?b)?$/i.exec(text) ?? expect.fail(`${text} is not a size`);
  return Number(number) * 1024 ** " kmg".indexOf(unit.toLowerCase() || " ");
}

/** An option, such as its size, of the tmpfs that a container has at this path. */
function tmpfs(name: string, path: string, option: "size" | "nr_inodes" = "size"): number {
  const options = service(name).tmpfs?.find((mount) => mount.startsWith(`${path}:`));
  return bytes(new RegExp(`[:,]${option}=(\\w+)`).exec(options ?? "")?.[1] ?? "none");
}

/** What the entries of a zip unpack to, by its central directory. */
function unpackedSizes(zip: Buffer): number[] {
  const sizes: number[] = [];
  let at = zip.readUInt32LE(zip.lastIndexOf(Buffer.from("PK\x05\x06", "latin1")) + 16);
  for (; zip.toString("latin1", at, at + 4) === "PK\x01\x02"; at += 46 + zip.readUInt16LE(at + 28)) sizes.push(zip.readUInt32LE(at + 24));
  return sizes;
}

describe("docker-compose.yml", () => {
  it("is what the Compose Specification allows", () => {
    const validate = new Ajv2020({ strict: false, validateFormats: false }).compile(
      JSON.parse(root("test/fixtures/compose-spec.json")) as object,
    );
    validate(file);
    expect(validate.errors).toBeNull();
  });

  it("brings the gateway, c-icap, ClamAV with its signatures, and Redis", () => {
    expect(services.map(([name]) => name)).toEqual(["gateway", "c-icap", "clamd", "freshclam", "redis"]);
  });

  it.each(services)("%s: is pinned to a version", (_, { image }) => {
    expect(image).toMatch(/:\d+\.\d+\.\d+(?:[-_][\w.-]+)?$/);
  });

  it.each(services)("%s: does not run as root", (_, { user }) => {
    expect(user).toMatch(/^(?!root\b|0\b)[a-z][a-z-]*$/);
  });

  it.each(services)("%s: can write to its own folders only, and gains nothing", (_, settings) => {
    expect(settings.read_only).toBe(true);
    expect(settings.cap_drop).toEqual(["ALL"]);
    expect(settings.cap_add).toBeUndefined();
    expect(settings.privileged).toBeUndefined();
    expect(settings.security_opt).toContain("no-new-privileges:true");
  });

  it.each(services)("%s: every tmpfs has a size", (_, { tmpfs = [] }) => {
    for (const mount of tmpfs) expect(mount).toMatch(/^\/[\w/-]+:size=\d+[mg],/);
  });

  it.each(services)("%s: is asked for its health, here or in its image", (name, { healthcheck, build }) => {
    const dockerfile = Object.entries(dockerfiles).find(([image]) => image === name)?.[1];
    if (build === undefined) expect(healthcheck).toBeDefined();
    else expect(dockerfile).toMatch(/^HEALTHCHECK /m);
  });

  it("starts c-icap after clamd, clamd after its signatures, the gateway after all of them", () => {
    expect(service("gateway").depends_on).toEqual({ redis: { condition: "service_healthy" }, "c-icap": { condition: "service_healthy" } });
    expect(service("c-icap").depends_on).toEqual({ clamd: { condition: "service_healthy" } });
    expect(service("clamd").depends_on).toEqual({ freshclam: { condition: "service_healthy" } });
  });

  it("publishes the gateway alone, on loopback, and keeps c-icap, clamd and Redis off the internet", () => {
    expect(services.filter(([, { ports }]) => ports !== undefined).map(([name]) => name)).toEqual(["gateway"]);
    expect(service("gateway").ports).toEqual(["127.0.0.1:8080:8080"]);
    expect(file.networks["scanning"]).toEqual({ internal: true });
    for (const name of ["c-icap", "clamd", "redis"]) expect(service(name).networks).toEqual(["scanning"]);
  });

  it("Redis is bounded, and keeps what operators decided: when memory is short, and when it is killed", async () => {
    const command = service("redis").command ?? [];
    const after = (option: string): string => command[command.indexOf(option) + 1] ?? expect.fail(`no ${option}`);
    expect(bytes(after("--maxmemory"))).toBeGreaterThan(0);
    expect(service("redis").volumes).toEqual(["redis-data:/data"]);
    const [policy, appendonly] = [after("--maxmemory-policy"), after("--appendonly")];
    await using server = await startRedis({ settings: { maxmemory: "4mb", "maxmemory-policy": policy, appendonly } });
    const redis = new Redis(server.port, server.host, { retryStrategy: () => 20, maxRetriesPerRequest: null });
    redis.on("error", () => undefined);
    try {
      await redis.hset("mig:overrides", "block:x", "sealed");
      await redis.set("mig:verdict:0", "x", "PX", 86_400_000);
      for (let n = 1; n <= 40; n += 1) await redis.set(`mig:verdict:${n}`, Buffer.alloc(100_000), "PX", 86_400_000);
      expect(Number(/evicted_keys:(\d+)/.exec(await redis.info("stats"))?.[1])).toBeGreaterThan(0);
      await server.kill();
      await server.restart();
      expect(await redis.hgetall("mig:overrides")).toEqual({ "block:x": "sealed" });
    } finally {
      redis.disconnect();
    }
  });

  it("c-icap and clamd share the socket that both configurations name", () => {
    const socket = setting("docker/clamd.conf", "LocalSocket");
    expect(setting("docker/c-icap/c-icap.conf", "clamd_mod.ClamdSocket")).toBe(socket);
    expect(dockerfiles["c-icap"]).toContain(`LocalSocket ${socket}`);
    for (const name of ["c-icap", "clamd", "freshclam"]) {
      const shared = service(name).volumes?.find((volume) => typeof volume === "object" && volume.source === "clamd-socket");
      expect(shared).toMatchObject({ target: socket.slice(0, socket.lastIndexOf("/")) });
    }
  });
});

describe("docker/config.yaml", () => {
  it("is a configuration that the gateway starts with", async () => {
    const { config } = await loadConfig(fileURLToPath(new URL("../docker/config.yaml", import.meta.url)));
    expect(config.icap.map(({ name, urls }) => [name, urls])).toEqual([["antivirus", [`icap://c-icap:1344/${VIRUS_SCAN}`]]]);
  });
});

describe("the images", () => {
  it.each(Object.entries(dockerfiles))("%s: every base is pinned, and the last user is not root", (_, dockerfile) => {
    const bases = [...dockerfile.matchAll(/^FROM (\S+)/gm)].map((match) => match[1]);
    expect(bases.length).toBeGreaterThan(0);
    for (const base of bases) expect(base).toMatch(/:\d+\.\d+(?:\.\d+)?-[\w-]+$/);
    expect(dockerfile.match(/^USER .*$/gm)?.at(-1)).toMatch(/^USER (?:node|c-icap)$/);
  });

  it("c-icap starts only once clamd answers", () => {
    expect(root("docker/c-icap/start.sh")).toMatch(/^set -eu\nclamdscan .*--ping .*\nexec c-icap /m);
    expect(dockerfiles["c-icap"]).toContain('ENTRYPOINT ["/usr/local/bin/start-c-icap"]');
  });
});

describe("the sizes", () => {
  const config = parse(root("docker/config.yaml")) as {
    icap: { max_connections: number; canary: string[] }[];
    scan: { max_file_size: string; temp_directory: string; spool: { disk: string } };
  };
  const largest = bytes(config.scan.max_file_size);
  const connections = config.icap[0]?.max_connections ?? 0;
  const [processes, each] = ["MaxServers", "ThreadsPerChild"].map((name) => Number(setting("docker/c-icap/c-icap.conf", name)));
  const threads = (processes ?? Number.NaN) * (each ?? Number.NaN);
  const clamd = (name: string): number => bytes(setting("docker/clamd.conf", name));
  /** What clamd's temporary folder takes: docker/clamd.conf says why. */
  const clamdTakes = threads * clamd("StreamMaxLength") + clamd("MaxThreads") * 3 * clamd("MaxScanSize");

  it("no limit of c-icap and clamd is below the gateway's", () => {
    expect(bytes(setting("docker/c-icap/c-icap.conf", "virus_scan.MaxObjectSize"))).toBeGreaterThan(largest);
    expect(clamd("StreamMaxLength")).toBeGreaterThan(largest);
    // An archive counts with what it unpacks to: here, one that holds what can't be compressed.
    for (const limit of ["MaxFileSize", "MaxScanSize"]) expect(clamd(limit)).toBeGreaterThan(2 * largest);
  });

  it("clamd tells what exceeds its limits, and the canary for it does, by its sum and by no entry", () => {
    expect(setting("docker/clamd.conf", "AlertExceedsMax")).toBe("yes");
    expect(setting("docker/clamd.conf", "AlertEncrypted")).toBe("yes");
    expect(config.icap[0]?.canary).toEqual(["plain", "zip", "pdf", "expand", "encrypted"]);
    const sizes = unpackedSizes(buildCanary("expand").bytes);
    expect(sizes.reduce((sum, size) => sum + size, 0)).toBeGreaterThan(clamd("MaxScanSize"));
    expect(Math.max(...sizes)).toBeLessThan(clamd("MaxFileSize"));
  });

  it("c-icap has threads for the gateway's connections and some more, and room for what all of them receive", () => {
    expect(threads).toBeGreaterThan(connections + 1);
    expect(setting("docker/c-icap/c-icap.conf", "TmpDir")).toBe("/tmp");
    expect(tmpfs("c-icap", "/tmp")).toBeGreaterThan(1.5 * threads * largest);
  });

  it("clamd has room for all that c-icap sends and all that it unpacks at once, and 2 copies of the signatures", () => {
    expect(clamd("MaxThreads")).toBeLessThanOrEqual(connections);
    expect(setting("docker/clamd.conf", "TemporaryDirectory")).toBe("/tmp");
    expect(bytes(service("clamd").mem_limit ?? "none")).toBeGreaterThanOrEqual(clamdTakes + 2 * bytes("1536m"));
  });

  it("clamd is out of memory before its temporary folder is full, and nothing is swapped to a disk", () => {
    const limit = bytes(service("clamd").mem_limit ?? "none");
    expect(tmpfs("clamd", "/tmp")).toBeGreaterThan(limit);
    // An inode of tmpfs and its name take more than 512 bytes of the memory that is counted.
    expect(512 * tmpfs("clamd", "/tmp", "nr_inodes")).toBeGreaterThanOrEqual(limit);
    expect(service("clamd").memswap_limit).toBe(service("clamd").mem_limit);
  });

  it("the gateway's spool fits into its own", () => {
    expect(tmpfs("gateway", config.scan.temp_directory)).toBeGreaterThanOrEqual(bytes(config.scan.spool.disk));
  });
});
