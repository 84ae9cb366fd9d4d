import { IcapServer, type IcapHandler, type IcapReply, type IcapRequest, type ServiceTable, signatureService } from "../../icap/index.ts";
import { EICAR } from "../../src/scan/canary-samples.ts";

export const TABLE: ServiceTable = { isTag: "tag-1", description: "test service", preview: 1024, maxConnections: 7, optionsTtl: 120 };

/** Finds EICAR anywhere, as long as nothing packs or encrypts it. */
export const antivirus: IcapHandler = signatureService({ signatures: [{ threat: "EICAR", contains: EICAR }], table: TABLE });

/** A service that reads all and answers what it is told to. */
export function answering(
  reply: IcapReply | ((request: IcapRequest, body: Buffer) => Promise<IcapReply> | IcapReply),
  table = TABLE,
): IcapHandler {
  return {
    table,
    async handle(request) {
      const body = Buffer.concat(await Array.fromAsync(request.body));
      return typeof reply === "function" ? reply(request, body) : reply;
    },
  };
}

export const CLEAN: IcapReply = { status: 204 };

export const BLOCKED: IcapReply = {
  status: 200,
  fields: [["X-Infection-Found", "Type=0; Resolution=2; Threat=EICAR;"]],
  http: { startLine: "HTTP/1.1 403 Forbidden", fields: [["Content-Length", "0"]], body: Buffer.alloc(0) },
};

export const UNSCANNABLE: IcapReply = {
  status: 200,
  fields: [["X-Infection-Found", "Type=2; Resolution=2; Threat=Encrypted archive;"]],
  http: { startLine: "HTTP/1.1 403 Forbidden", fields: [["Content-Length", "0"]], body: Buffer.alloc(0) },
};

export interface Services extends AsyncDisposable {
  url(service: string): string;
}

export async function serve(services: Readonly<Record<string, IcapHandler>>): Promise<Services> {
  const server = new IcapServer({ services });
  const { port } = await server.listen(0);
  return {
    url: (service) => `icap://127.0.0.1:${port}/${service}`,
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
}
