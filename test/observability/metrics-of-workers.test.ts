import { describe, expect, it } from "vitest";
import { createMetrics, type Metrics } from "../../src/observability/metrics.ts";
import { MetricsOfWorkers } from "../../src/observability/metrics-of-workers.ts";

const WORK = { active: 3, queued: 1 };

function workerMetrics(provenSize: number, ready = true): Metrics {
  const metrics = createMetrics();
  metrics.observe({
    scanners: () => [{ name: "antivirus", ready, replicas: [{ url: "icap://one/x", state: ready ? "up" : "down", provenSize }] }],
    requests: () => WORK,
    spool: () => ({ memory: 1000, disk: 50 }),
    mediaMemory: () => 300,
    redis: () => ({ usable: ready, listening: true }),
  });
  return metrics;
}

function counted(metrics: Metrics, times: number): void {
  for (let at = 0; at < times; at += 1) {
    metrics.request({ route: "download", status: 200, outcome: "ok", duration: 80, sent: 10 });
  }
}

describe("metrics of several workers", () => {
  it("are those of one gateway: what is counted or held adds up, of what all see alike the worst is told", async () => {
    const all = new MetricsOfWorkers(() => ({ wanted: 3, serving: 2, replaced: 4 }));
    const workers = [workerMetrics(2000), workerMetrics(1000, false)] as const;
    counted(workers[0], 2);
    counted(workers[1], 3);
    for (const metrics of workers) {
      metrics.canary({ scanner: "antivirus", canary: "expand", missed: true });
      all.keep(metrics, structuredClone(await metrics.snapshot()));
    }
    const lines = (await all.render()).split("\n");
    for (const line of [
      'mig_requests_total{route="download",status="200",outcome="ok"} 5',
      'mig_request_duration_seconds_bucket{le="0.1",route="download"} 5',
      'mig_request_duration_seconds_bucket{le="0.05",route="download"} 0',
      'mig_request_duration_seconds_count{route="download"} 5',
      "mig_sent_bytes_total 50",
      'mig_requests{state="active"} 6',
      'mig_requests{state="queued"} 2',
      'mig_spool_bytes{place="memory"} 2000',
      "mig_media_memory_bytes 600",
      "mig_redis_up 0",
      "mig_redis_listening 1",
      'mig_scanner_ready{scanner="antivirus"} 0',
      'mig_replica_state{scanner="antivirus",replica="icap://one/x",state="up"} 1',
      'mig_replica_state{scanner="antivirus",replica="icap://one/x",state="down"} 1',
      'mig_replica_proven_size_bytes{scanner="antivirus",replica="icap://one/x"} 1000',
      'mig_canary_missed{scanner="antivirus",canary="expand"} 1',
      'mig_workers{state="serving"} 2',
      'mig_workers{state="wanted"} 3',
      "mig_workers_replaced_total 4",
    ]) {
      expect(lines).toContain(line);
    }
    expect(lines.filter((line) => line.startsWith("mig_process_start_time_seconds ")).length).toBe(1);
  });

  it("keep what those counted that are gone, and forget what they held", async () => {
    const all = new MetricsOfWorkers(() => ({ wanted: 1, serving: 1, replaced: 0 }));
    for (const times of [1, 2, 3]) {
      const metrics = workerMetrics(2000);
      counted(metrics, times);
      all.keep(metrics, await metrics.snapshot());
      if (times < 3) all.gone(metrics);
    }
    all.gone({});
    for (let twice = 0; twice < 2; twice += 1) {
      const lines = (await all.render()).split("\n");
      expect(lines).toContain('mig_requests_total{route="download",status="200",outcome="ok"} 6');
      expect(lines).toContain('mig_request_duration_seconds_count{route="download"} 6');
      expect(lines).toContain('mig_requests{state="active"} 3');
      expect(lines).toContain("mig_workers_replaced_total 0");
    }
  });
});
