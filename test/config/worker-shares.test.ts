import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Config, ConfigError, loadConfig } from "../../src/config/load.ts";
import { shareOf } from "../../src/config/worker-shares.ts";

let directory: string;
let file: string;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "mig-shares-"));
  file = join(directory, "config.yaml");
});

afterAll(() => rm(directory, { recursive: true }));

const ICAP = "icap: [{ name: av, urls: ['icap://127.0.0.1/x'] }]\n";

async function load(text: string): Promise<{ config: Config; warnings: string[] }> {
  await writeFile(file, text);
  return loadConfig(file);
}

async function complaints(text: string): Promise<string[]> {
  const error = await load(text).then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!(error instanceof ConfigError)) throw new Error("it is no problem");
  return error.message.split("\n").map((line) => line.replace(`${file}:`, ""));
}

function total(shares: readonly Config[], of: (config: Config) => number): number {
  return shares.reduce((sum, config) => sum + of(config), 0);
}

describe("limits that several workers share", () => {
  it.each([1, 2, 3, 7])("are never more than what the file says, and all of it, for %i", async (workers) => {
    const { config } = await load(`${ICAP}web: { workers: ${workers} }\nresult_cache: { max_size: 1000 }\n`);
    const shares = Array.from({ length: workers }, (_, index) => shareOf(config, index + 1));
    const limits: ((config: Config) => number)[] = [
      ({ scan }) => scan.max_concurrent,
      ({ scan }) => scan.max_queued,
      ({ scan }) => scan.spool.memory,
      ({ scan }) => scan.spool.disk,
      ({ icap }) => icap[0]?.max_connections ?? NaN,
      ({ icap }) => icap[0]?.max_waiting ?? NaN,
      ({ result_cache }) => result_cache.max_size,
      ({ result_cache }) => result_cache.media_memory,
    ];
    for (const limit of limits) {
      const parts = shares.map(limit);
      expect(total(shares, limit)).toBe(limit(config));
      expect(Math.max(...parts) - Math.min(...parts)).toBeLessThanOrEqual(1);
      expect(Math.min(...parts)).toBeGreaterThanOrEqual(1);
    }
  });

  it("give one client twice the even part in each worker, but never more than it may have in all", async () => {
    const { config } = await load(`${ICAP}web: { workers: 4 }\n`);
    expect(shareOf(config, 1).scan.max_per_client).toBe(8);
    const { config: two } = await load(`${ICAP}web: { workers: 2 }\nscan: { max_per_client: 5 }\n`);
    expect(shareOf(two, 1).scan.max_per_client).toBe(5);
  });

  it("leave everything else, and a single process, as it is", async () => {
    const { config } = await load(`${ICAP}web: { workers: 1 }\n`);
    expect(shareOf(config, 1)).toBe(config);
    const { config: two } = await load(`${ICAP}web: { workers: 2 }\nscan: { max_queued: 0 }\n`);
    const { scan, icap, result_cache: cache, ...rest } = shareOf(two, 2);
    expect({ ...two, ...rest }).toEqual(two);
    expect({ ...scan, max_concurrent: 64, spool: two.scan.spool }).toEqual(two.scan);
    expect(icap).toEqual([{ ...two.icap[0], max_connections: 8, max_waiting: 128 }]);
    expect(cache).toEqual({ ...two.result_cache, max_size: 50_000, media_memory: 32 << 20 });
  });

  it.each([
    ["scan: { max_concurrent: 7 }", /^2:25: scan\.max_concurrent: must be at least 8: the 8 processes of web\.workers share it$/],
    ["scan: { max_queued: 7 }", /^2:21: scan\.max_queued: must be at least 8, or 0: the 8 processes/],
    ["scan: { spool: { memory: 15MiB } }", /^2:26: scan\.spool\.memory: must be at least 16MiB: the 8 processes/],
    ["scan: { spool: { disk: 1GiB } }", /^2:24: scan\.spool\.disk: must be at least 8 times scan\.max_file_size: the 8 processes/],
    ["scan: { max_file_size: 2GiB }", /^2:1: scan\.spool\.disk: must be at least 8 times scan\.max_file_size/],
  ])("%s is too little for eight", async (section, complaint) => {
    expect(await complaints(`${ICAP}${section}\nweb: { workers: 8 }\n`)).toEqual([expect.stringMatching(complaint)]);
  });

  it("of a service are told of with their place", async () => {
    const text = "web: { workers: 4 }\nicap:\n  - name: av\n    urls: [icap://127.0.0.1/x]\n    max_connections: 3\n    max_waiting: 2\n";
    expect(await complaints(text)).toEqual([
      "5:22: icap[0].max_connections: must be at least 4: the 4 processes of web.workers share it",
      "6:18: icap[0].max_waiting: must be at least 4, or 0: the 4 processes of web.workers share it",
    ]);
  });

  it.each([
    ["0", "web.workers: must be at least 1"],
    ["129", "web.workers: must not be more than 128"],
    ["1.5", "web.workers: must be a whole number"],
    ["many", "web.workers: must be a number, not a string"],
  ])("are not divided by %s", async (workers, complaint) => {
    expect(await complaints(`${ICAP}web: { workers: ${workers} }\nscan: { max_concurrent: 1 }\n`)).toEqual([
      expect.stringContaining(complaint),
    ]);
  });

  it("are warned of where what is left for each is little, and so are more workers than processors", async () => {
    const { warnings } = await load(
      `${ICAP}web: { workers: 128 }\nscan: { max_concurrent: 128, spool: { memory: 1GiB, disk: 1TiB } }\n`.replace(
        "] }",
        "], max_connections: 130 }",
      ),
    );
    const disk = `${ICAP}web: { workers: 2 }\nscan: { spool: { disk: 799MiB } }\n`;
    const home = "download: { base_homeserver_url: http://127.0.0.1:8008 }\n";
    expect((await load(disk)).warnings.join("\n")).not.toMatch(/spool\.disk/);
    for (const on of ["upload: { enabled: true }\nscan_file: { enabled: false }\n", ""]) {
      expect((await load(disk + home + on)).warnings.join("\n")).toMatch(/spool\.disk: is less than twice .* for each of 2 workers/);
      expect((await load(disk.replace("799", "800") + home + on)).warnings.join("\n")).not.toMatch(/spool\.disk/);
    }
    expect(warnings.join("\n")).toMatch(/max_connections: divided by 128 workers is so small that files wait/);
    expect(warnings.join("\n")).not.toMatch(/media_memory/);
    const memory = await load(
      `${ICAP}web: { workers: 3 }\nresult_cache: { media_memory: 47MiB }\ndownload: { base_homeserver_url: http://127.0.0.1:8008, authorization_ttl: 1m }\n`,
    );
    expect(memory.warnings.join("\n")).toMatch(/result_cache\.media_memory: divided by 3 workers is less than result_cache\.max_file_size/);
    expect(warnings.join("\n")).toMatch(/web\.workers: are more than the \d+ processors that there are/);
  });
});
