/** Requests whose path goes out as it is: clients of the usual kind normalise it. */
import { request } from "node:http";
import { request as requestTls } from "node:https";
import { buffer } from "node:stream/consumers";
import { testCertificate } from "./tls.ts";

export interface RawAnswer {
  readonly status: number | undefined;
  readonly body: Buffer;
  /** The body, where it is JSON. */
  readonly json: unknown;
}

export interface RawOptions {
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array;
}

/**
 * @param url http or https; of the latter only the test certificate is believed
 * @param target the request line's target, byte for byte
 */
export async function rawRequest(url: string, target: string, { method = "GET", headers = {}, body }: RawOptions = {}): Promise<RawAnswer> {
  const { protocol, hostname, port } = new URL(url);
  const { promise, resolve, reject } = Promise.withResolvers<RawAnswer>();
  const options = { hostname, port, path: target, method, headers, agent: false, ca: testCertificate.cert };
  const sent = (protocol === "https:" ? requestTls : request)(options, (response) => {
    const isJson = response.headers["content-type"]?.startsWith("application/json") === true;
    buffer(response).then(
      (bytes) =>
        resolve({ status: response.statusCode, body: bytes, json: isJson && bytes.length > 0 ? JSON.parse(bytes.toString()) : undefined }),
      reject,
    );
  });
  sent.on("error", reject).end(body);
  return promise;
}
