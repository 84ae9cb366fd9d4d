/** Verdicts in Redis, as many as are wanted, written as the gateway writes them. */
import { randomBytes } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { RedisRecords, type RedisRecordsOptions } from "../../src/verdicts/redis-records.ts";
import { SharedVerdictStore } from "../../src/verdicts/shared-verdicts.ts";
import type { SourceRecord } from "../../src/verdicts/store.ts";
import { measureLoad } from "../measurements.ts";
import type { FactRow, Facts, GatewaySetup } from "../row.ts";
import type { RedisPeer, Stage } from "../stage.ts";
import { KIB } from "./sizes.ts";

/** Media that a second gateway is asked for, beside all those. */
const ASKED = 1000;
/** Writes to Redis at once. */
const BATCH = 250;
/** Batches in vain, one after another, and milliseconds between them: it is not connected at once. */
const ATTEMPTS = 500;
const PAUSE = 20;
const DAY = 24 * 60 * 60 * 1000;
const QUIET: RedisRecordsOptions["log"] = { info: () => undefined, warn: () => undefined };

export function verdictsRow(verdicts: number): FactRow {
  return {
    name: `growth-verdicts-${verdicts}`,
    title: `${verdicts} verdicts in Redis`,
    // Filling it takes longer than measuring.
    runs: 1,
    gateway: { redis: true, instances: 2 },
    measure: (stage, setup) => measure(stage, setup, verdicts),
  };
}

async function measure(stage: Stage, setup: GatewaySetup, verdicts: number): Promise<Facts> {
  await using started = await stage.startGateways(setup);
  const redis = await stage.redis();
  const bytes = await fill(redis, verdicts);
  const [first, second] = started.gateways;
  if (first === undefined || second === undefined) throw new RangeError("two gateways are needed");
  const spec = {
    endpoint: "scan_encrypted",
    size: 10 * KIB,
    media: ASKED,
    series: randomBytes(4).toString("hex"),
    connections: 32,
    until: { requests: ASKED },
  } as const;
  await measureLoad({ ...spec, targets: [first.url] }, []);
  const { figures, result } = await measureLoad({ ...spec, targets: [second.url] }, [second.pid]);
  if (result.errors > 0) throw new Error(`the second gateway fails: ${result.examples.join("; ")}`);
  return {
    "bytes in Redis for each": bytes / verdicts,
    "scan_encrypted, first time at a second gateway: requests/s": figures.requestsPerSecond,
    "of those, p50 ms": figures.p50,
    "of those, CPU ms a request": figures.cpuPerRequest,
  };
}

/**
 * A source and its verdict each, of media of one piece. What is written while Redis is busy may be lost, and is then made up for.
 * Resolves to the bytes that they take. @throws Error when Redis keeps nothing for long
 */
async function fill(redis: RedisPeer, verdicts: number): Promise<number> {
  const before = { keys: await redis.keys(), memory: await redis.memory() };
  const wanted = before.keys + 2 * verdicts;
  const ttl = { clean: DAY, infected: DAY };
  using records = new RedisRecords({ connection: { url: redis.url }, keyPrefix: "mig:", secret: randomBytes(32), log: QUIET });
  await using store = new SharedVerdictStore({ records, ttl, maxEntries: 1 });
  for (let keys = before.keys, vain = 0; keys < wanted;) {
    const batch = Math.min(BATCH, Math.ceil((wanted - keys) / 2));
    await Promise.all(Array.from({ length: batch }, () => remember(store)));
    const now = await redis.keys();
    vain = now > keys ? 0 : vain + 1;
    if (vain === ATTEMPTS) throw new Error("Redis keeps nothing");
    if (vain > 0) await sleep(PAUSE);
    keys = now;
  }
  return (await redis.memory()) - before.memory;
}

async function remember(store: SharedVerdictStore): Promise<void> {
  const content = randomName();
  const stamps = { antivirus: { tag: '"CI0001-2.9.1.27940-clamav-1.4.6"', at: Date.now() } };
  const verdict = await store.rememberVerdict(content, { outcome: "clean", stamps });
  const source: SourceRecord = {
    content,
    digest: randomName(),
    size: 123_456,
    pieces: randomBytes(32),
    ...(verdict === undefined ? {} : { verdict }),
  };
  await store.rememberSource(randomName(), source);
}

/** As long as a keyed digest. */
function randomName(): string {
  return randomBytes(32).toString("base64url");
}
