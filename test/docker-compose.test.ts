import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { Ajv2020 } from "ajv/dist/2020.js";
import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import { loadConfig } from "../src/config/load.ts";
import { buildCanary } from "../src/scan/canary-samples.ts";
import { VIRUS_SCAN } from "./support/peers/c-icap.ts";

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

/** The size of the tmpfs that a container has at this path. */
function tmpfsSize(name: string, path: string): number {
  const options = service(name).tmpfs?.find((mount) => mount.startsWith(`${path}:`));
  return bytes(/[:,]size=(\w+)/.exec(options ?? "")?.[1] ?? "none");
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

  it("Redis is bounded, drops what expires first, and writes nothing to disk", () => {
    const command = service("redis").command ?? [];
    const after = (option: string): string | undefined => command[command.indexOf(option) + 1];
    expect(bytes(after("--maxmemory") ?? "")).toBeGreaterThan(0);
    expect(after("--maxmemory-policy")).toBe("volatile-ttl");
    expect(after("--save")).toBe("");
    expect(after("--appendonly")).toBe("no");
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

  it("no limit of c-icap and clamd is below the gateway's", () => {
    expect(bytes(setting("docker/c-icap/c-icap.conf", "virus_scan.MaxObjectSize"))).toBeGreaterThan(largest);
    for (const limit of ["StreamMaxLength", "MaxFileSize", "MaxScanSize"]) {
      expect(bytes(setting("docker/clamd.conf", limit))).toBeGreaterThan(largest);
    }
  });

  it("clamd tells what exceeds its limits, and the canary for it does", () => {
    expect(setting("docker/clamd.conf", "AlertExceedsMax")).toBe("yes");
    expect(setting("docker/clamd.conf", "AlertEncrypted")).toBe("yes");
    expect(config.icap[0]?.canary).toEqual(["plain", "zip", "pdf", "expand", "encrypted"]);
    const unpacked = buildCanary("expand").bytes.readUInt32LE(22);
    expect(unpacked).toBeGreaterThan(bytes(setting("docker/clamd.conf", "MaxScanSize")));
  });

  it("what is decrypted fits into the temporary folders, all scans together", () => {
    for (const name of ["c-icap", "clamd"]) expect(tmpfsSize(name, "/tmp")).toBeGreaterThan(connections * largest);
    expect(setting("docker/c-icap/c-icap.conf", "TmpDir")).toBe("/tmp");
    expect(setting("docker/clamd.conf", "TemporaryDirectory")).toBe("/tmp");
  });

  it("the gateway's spool fits into its own", () => {
    expect(tmpfsSize("gateway", config.scan.temp_directory)).toBeGreaterThanOrEqual(bytes(config.scan.spool.disk));
  });
});
