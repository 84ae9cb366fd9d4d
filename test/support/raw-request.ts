/** Requests whose path goes out as it is: clients of the usual kind normalise it. */
import { request } from "node:http";
import { json } from "node:stream/consumers";

export interface RawAnswer {
  readonly status: number | undefined;
  readonly json: unknown;
}

/** @param target the request line's target, byte for byte */
export async function rawGet(url: string, target: string, headers: Readonly<Record<string, string>> = {}): Promise<RawAnswer> {
  const { hostname, port } = new URL(url);
  const { promise, resolve, reject } = Promise.withResolvers<RawAnswer>();
  const sent = request({ hostname, port, path: target, headers }, (response) => {
    json(response).then(
      (body) => resolve({ status: response.statusCode, json: body }),
      () => resolve({ status: response.statusCode, json: undefined }),
    );
  });
  sent.on("error", reject).end();
  return promise;
}
