/** One failure, written for those who read it. */
import { Hono } from "hono";
import { describe, expect, it } from "vitest";
import { GatewayError } from "../../src/errors.ts";
import { type HttpEnv, takeInHand } from "../../src/http/env.ts";
import { errorAnswer, inStandardForm } from "../../src/http/errors.ts";
import { listen } from "../../src/http/server.ts";

/** The answer to a request that fails so, on a route of either API. */
async function answers(error: Error) {
  const app = new Hono<HttpEnv>();
  app.use("/_matrix/media/*", inStandardForm);
  app.get("*", () => {
    throw error;
  });
  app.onError((thrown, context) => errorAnswer(context, thrown));
  const listener = await listen({ fetch: (request, bindings) => app.fetch(request, takeInHand(bindings)) }, { host: "127.0.0.1", port: 0 });
  const of = async (path: string) => {
    const response = await fetch(`http://127.0.0.1:${listener.address.port}${path}`);
    return { status: response.status, retryAfter: response.headers.get("retry-after"), body: await response.json() };
  };
  try {
    return { scanner: await of("/_matrix/media_proxy/x"), standard: await of("/_matrix/media/x") };
  } finally {
    await listener.close(AbortSignal.abort());
  }
}

describe("an error", () => {
  it("is reason and info on the content-scanner API, and the standard form with both beside it on the client-server API", async () => {
    const { scanner, standard } = await answers(new GatewayError("infected", { detail: "Eicar" }));
    const said = { reason: "MCS_MEDIA_NOT_CLEAN", info: "***VIRUS DETECTED***" };
    expect(scanner).toEqual({ status: 403, retryAfter: null, body: said });
    expect(standard).toEqual({ status: 403, retryAfter: null, body: { errcode: "M_FORBIDDEN", error: "***VIRUS DETECTED***", ...said } });
  });

  it("about a token has the homeserver's own words in both", async () => {
    const token = { errcode: "M_UNKNOWN_TOKEN", error: "Access token has expired", softLogout: true };
    const { scanner, standard } = await answers(new GatewayError("unknown_token", { token }));
    expect(scanner.body).toEqual({
      reason: "M_UNKNOWN_TOKEN",
      info: "The homeserver does not know this access token",
      errcode: "M_UNKNOWN_TOKEN",
      error: "Access token has expired",
      soft_logout: true,
    });
    expect(standard).toEqual(scanner);
  });

  it("that says to ask again says when, in both", async () => {
    const limited = await answers(new GatewayError("rate_limited", { retryAfter: 1.5 }));
    const body = { errcode: "M_LIMIT_EXCEEDED", error: "Too many requests", retry_after_ms: 1500 };
    expect(limited.standard).toEqual({ status: 429, retryAfter: "2", body });
    expect(limited.scanner).toEqual(limited.standard);
    const away = await answers(new GatewayError("scanner_unavailable"));
    expect(away.standard).toMatchObject({ status: 503, retryAfter: "10", body: { errcode: "M_UNKNOWN", reason: "M_UNKNOWN" } });
    expect(away.scanner.retryAfter).toBe("10");
    expect(away.scanner.body).not.toHaveProperty("errcode");
  });

  it("that nobody foresaw tells nothing of itself in either", async () => {
    const { scanner, standard } = await answers(new Error("secret"));
    expect(scanner).toEqual({ status: 500, retryAfter: null, body: { reason: "M_UNKNOWN", info: "Internal error" } });
    expect(standard.body).toEqual({ errcode: "M_UNKNOWN", error: "Internal error", reason: "M_UNKNOWN", info: "Internal error" });
  });

  it("that comes when another answer is on its way cuts that off, and says nothing", async () => {
    const app = new Hono<HttpEnv>();
    app.get("*", ({ env: { outgoing } }) => {
      outgoing.writeHead(200, { "content-length": 100 });
      outgoing.write("the beginning of media");
      throw new GatewayError("infected");
    });
    app.onError((thrown, context) => errorAnswer(context, thrown));
    const listener = await listen(
      { fetch: (request, bindings) => app.fetch(request, takeInHand(bindings)) },
      { host: "127.0.0.1", port: 0 },
    );
    const came: string[] = [];
    try {
      const response = await fetch(`http://127.0.0.1:${listener.address.port}/`);
      for await (const chunk of response.body ?? []) came.push(Buffer.from(chunk).toString());
      expect.unreachable("the answer came to its end");
    } catch (error) {
      expect(error).toMatchObject({ name: "TypeError" });
    } finally {
      await listener.close(AbortSignal.abort());
    }
    expect("the beginning of media".startsWith(came.join(""))).toBe(true);
  });
});
