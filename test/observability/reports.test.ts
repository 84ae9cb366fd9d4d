import { describe, expect, it } from "vitest";
import { GatewayError } from "../../src/errors.ts";
import { createLogger } from "../../src/observability/log.ts";
import { createMetrics } from "../../src/observability/metrics.ts";
import { GatewayReports, type RequestReport } from "../../src/observability/reports.ts";

function observed() {
  const lines: string[] = [];
  const metrics = createMetrics();
  const log = createLogger({ level: "info", stream: { write: (line: string) => void lines.push(line) } });
  return {
    reports: new GatewayReports(log, metrics),
    logged: () => lines.map((line) => JSON.parse(line) as Record<string, unknown>),
    samples: async () => (await metrics.render()).split("\n"),
  };
}

const REPORT: RequestReport = {
  method: "GET",
  route: "/_matrix/media_proxy/unstable/download/:serverName/:mediaId",
  status: 200,
  error: undefined,
  mxc: { serverName: "example.org", mediaId: "abc" },
  journal: { via: "scan", verdict: "clean" },
  durationMs: 1,
  sent: 1,
  complete: true,
  deliveryError: undefined,
};

describe("reports", () => {
  it("count media that passed without a verdict, and media that changed, and say why", async () => {
    const { reports, logged, samples } = observed();
    reports.unscanned({}, "nobody answered");
    reports.changed({}, "other bytes");
    reports.changed({}, "other bytes");
    expect(await samples()).toEqual(expect.arrayContaining(["mig_unscanned_total 1", "mig_changed_media_total 2"]));
    expect(logged()).toMatchObject([{ level: "warn", why: "nobody answered" }, { why: "other bytes" }, { why: "other bytes" }]);
  });

  it("a missed canary is a warning and a metric, until it is caught", async () => {
    const { reports, logged, samples } = observed();
    reports.missed("antivirus", "expand", true, "set AlertExceedsMax");
    expect(await samples()).toContain('mig_canary_missed{scanner="antivirus",canary="expand"} 1');
    reports.missed("antivirus", "expand", false, "set AlertExceedsMax");
    expect(await samples()).toContain('mig_canary_missed{scanner="antivirus",canary="expand"} 0');
    expect(logged()).toMatchObject([{ level: "warn", canary: "expand", advice: "set AlertExceedsMax" }, { level: "info" }]);
  });

  it("what other instances found out about a scanner is a warning that says which verdicts count no more", () => {
    const { reports, logged } = observed();
    reports.doubtsLearned("antivirus", [{ of: "clean", from: 0, until: Number.MAX_SAFE_INTEGER }]);
    expect(logged()).toMatchObject([
      { level: "warn", scanner: "antivirus", of: "clean", from: "1970-01-01T00:00:00.000Z", until: "+275760-09-13T00:00:00.000Z" },
    ]);
  });

  it("of encrypted media nothing is told that names its server, whoever still waits for it", () => {
    const { reports, logged } = observed();
    const error = new GatewayError("homeserver_failed", { detail: "ENOTFOUND private-room.example" });
    const route = "/_matrix/media_proxy/unstable/download_encrypted";
    reports.request({ ...REPORT, route, mxc: undefined, status: 502, error });
    reports.abandoned({ attachment: {} }, error);
    expect(logged()).toMatchObject([{ outcome: "homeserver_failed", encrypted: true }, { outcome: "homeserver_failed" }]);
    expect(JSON.stringify(logged())).not.toContain("private-room");
  });

  it("each verdict is counted where it came from, a replaced file among them", async () => {
    const { reports, samples } = observed();
    reports.request(REPORT);
    reports.request({ ...REPORT, status: 403, error: new GatewayError("modified"), journal: { via: "cache", verdict: "modified" } });
    expect(await samples()).toEqual(
      expect.arrayContaining([
        'mig_verdicts_total{verdict="clean",via="scan"} 1',
        'mig_verdicts_total{verdict="modified",via="cache"} 1',
        'mig_requests_total{route="download",status="403",outcome="modified"} 1',
      ]),
    );
  });

  it.each([
    ["/_matrix/media_proxy/unstable/scan/:serverName/:mediaId", "scan"],
    ["/_matrix/client/v1/media/download/:serverName/:mediaId/:filename", "transparent_download"],
    ["/_matrix/client/unstable/org.matrix.msc3916/media/thumbnail/:serverName/:mediaId", "transparent_thumbnail"],
    ["/_matrix/media/r0/config", "transparent_config"],
    ["/_matrix/media/v3/preview_url", "transparent_preview_url"],
    ["/_matrix/media/v3/elsewhere", "other"],
    ["/_matrix/media/*", "other"],
    ["/*", "other"],
  ])("a request of %s is counted as %s", async (pattern, route) => {
    const { reports, samples } = observed();
    reports.request({ ...REPORT, route: pattern });
    expect(await samples()).toContain(`mig_requests_total{route="${route}",status="200",outcome="ok"} 1`);
  });

  it("a request that could not be read is logged and counted, as no route's", async () => {
    const { reports, logged, samples } = observed();
    reports.request({ ...REPORT, method: "", route: "", status: 400, error: new GatewayError("bad_request"), mxc: undefined, journal: {} });
    expect(await samples()).toContain('mig_requests_total{route="other",status="400",outcome="bad_request"} 1');
    expect(logged()).toMatchObject([{ level: "info", outcome: "bad_request", status: 400 }]);
  });
});
