import { describe, expect, it } from "vitest";
import { createMetrics } from "../../src/observability/metrics.ts";

async function samples(metrics: ReturnType<typeof createMetrics>): Promise<string[]> {
  return (await metrics.render()).split("\n").filter((line) => !line.startsWith("#"));
}

describe("metrics", () => {
  it("count requests, verdicts and bytes, and measure in seconds", async () => {
    const metrics = createMetrics();

    metrics.request({ route: "download", status: 200, outcome: "ok", duration: 1500, sent: 10 });
    metrics.request({ route: "download", status: 403, outcome: "infected", duration: 500, sent: 5 });
    metrics.download({ outcome: "ok", duration: 20, bytes: 1000 });
    metrics.scan({ scanner: "antivirus", outcome: "infected", duration: 250 });
    metrics.verdict({ verdict: "infected", via: "cache" });

    expect(await samples(metrics)).toEqual(
      expect.arrayContaining([
        'mig_requests_total{route="download",status="200",outcome="ok"} 1',
        'mig_requests_total{route="download",status="403",outcome="infected"} 1',
        'mig_request_duration_seconds_sum{route="download"} 2',
        "mig_sent_bytes_total 15",
        "mig_downloaded_bytes_total 1000",
        'mig_download_duration_seconds_count{outcome="ok"} 1',
        'mig_scan_duration_seconds_sum{scanner="antivirus",outcome="infected"} 0.25',
        'mig_verdicts_total{verdict="infected",via="cache"} 1',
      ]),
    );
  });

  it("read gauges when they are asked for", async () => {
    const metrics = createMetrics();
    let ready = false;
    let queued = 0;
    metrics.observe({
      scanners: () => [
        {
          name: "antivirus",
          ready,
          replicas: [
            { url: "icap://one/x", state: ready ? "up" : "suspended", provenSize: 1024 },
            { url: "icap://two/x", state: "broken", provenSize: undefined },
          ],
        },
      ],
      requests: () => ({ active: 2, queued }),
      spool: () => ({ memory: 1, disk: 4096 }),
      mediaMemory: () => 77,
      redis: () => ({ usable: ready, listening: !ready }),
    });

    expect(await samples(metrics)).toEqual(
      expect.arrayContaining([
        'mig_scanner_ready{scanner="antivirus"} 0',
        'mig_replica_state{scanner="antivirus",replica="icap://one/x",state="suspended"} 1',
        'mig_replica_state{scanner="antivirus",replica="icap://one/x",state="up"} 0',
        'mig_replica_state{scanner="antivirus",replica="icap://two/x",state="broken"} 1',
        'mig_replica_proven_size_bytes{scanner="antivirus",replica="icap://one/x"} 1024',
        "mig_redis_up 0",
        "mig_redis_listening 1",
        'mig_requests{state="active"} 2',
        'mig_requests{state="queued"} 0',
        'mig_spool_bytes{place="disk"} 4096',
        "mig_media_memory_bytes 77",
      ]),
    );

    ready = true;
    queued = 7;
    expect(await samples(metrics)).toEqual(
      expect.arrayContaining(['mig_scanner_ready{scanner="antivirus"} 1', 'mig_requests{state="queued"} 7']),
    );
  });

  it("show a missed canary until each replica that missed it catches it", async () => {
    const metrics = createMetrics();
    const canary = { scanner: "antivirus", canary: "expand" };

    metrics.canary({ ...canary, missed: true });
    metrics.canary({ ...canary, missed: true });
    metrics.canary({ ...canary, missed: false });
    expect(await samples(metrics)).toContain('mig_canary_missed{scanner="antivirus",canary="expand"} 1');

    metrics.canary({ ...canary, missed: false });
    expect(await samples(metrics)).toContain('mig_canary_missed{scanner="antivirus",canary="expand"} 0');
  });

  it("belong to one gateway, and are all named after it", async () => {
    const one = createMetrics();
    const other = createMetrics();

    one.verdict({ verdict: "clean", via: "scan" });

    expect(await samples(other)).not.toContain('mig_verdicts_total{verdict="clean",via="scan"} 1');
    expect((await samples(one)).filter((line) => line !== "" && !line.startsWith("mig_"))).toEqual([]);
    expect((await samples(one)).join("\n")).toContain("mig_process_cpu_seconds_total");
    expect(one.contentType).toMatch(/^text\/plain/);
  });
});
