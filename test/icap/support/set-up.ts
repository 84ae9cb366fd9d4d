import { IcapService, type IcapServiceOptions } from "../../../icap/index.ts";
import { CLEAN, type Script, scriptedServer } from "./scripted-server.ts";

/** A scripted server and a service that asks it; both end with the scope. */
export async function setUp(script: Script, options: Partial<IcapServiceOptions> = {}) {
  const server = await scriptedServer(script);
  const service = new IcapService({ url: server.url, ...options });
  return {
    server,
    service,
    async [Symbol.asyncDispose]() {
      await service[Symbol.asyncDispose]();
      await server[Symbol.asyncDispose]();
    },
  };
}

/** Every file is clean, once all of it is there. */
export const clean: Script = { complete: ({ socket }) => socket.write(CLEAN) };
