/** The second listener, for those who run the gateway: is it alive, can it do its work, what does it count. */
import { Hono } from "hono";

export interface Readiness {
  readonly ready: boolean;
  /** Serving, but not as it should be: a cache that is away, a canary that is missed. */
  readonly degraded: boolean;
  readonly problems: readonly string[];
}

export interface AdminOptions {
  readonly readiness: () => Readiness | Promise<Readiness>;
  readonly metrics: { readonly contentType: string; render(): Promise<string> };
}

/**
 * Not for clients: `GET /health/live` is 200 while the process answers at all; `GET /health/ready` is 200 with `status` `ready` or `degraded`,
 * or 503 with `not ready`, and says in `problems` what an operator can mend; `GET /metrics` is for Prometheus.
 */
export function createAdminApp(options: AdminOptions): Hono {
  const app = new Hono();
  app.get("/health/live", (context) => context.json({ status: "live" }));
  app.get("/health/ready", async (context) => {
    const { ready, degraded, problems } = await options.readiness();
    const status = ready ? (degraded ? "degraded" : "ready") : "not ready";
    return context.json({ status, problems }, ready ? 200 : 503);
  });
  app.get("/metrics", async (context) =>
    context.body(await options.metrics.render(), 200, { "content-type": options.metrics.contentType }),
  );
  return app;
}
