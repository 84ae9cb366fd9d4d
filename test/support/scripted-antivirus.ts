/** Scripts of an antivirus, for `scriptedServer`. */
import { EICAR } from "../../src/scan/canary-samples.ts";
import { CLEAN, type Peer, type Script } from "../icap/support/scripted-server.ts";

/** A head alone, which names a threat. */
export const INFECTED = 'ICAP/1.0 204 OK\r\nISTag: "tag-1"\r\nX-Infection-Found: Type=0; Resolution=2; Threat=Eicar;\r\n\r\n';

/** Whether EICAR stands in it, unpacked. */
export function hasEicar(text: string): boolean {
  return text.includes(EICAR.toString("latin1"));
}

/** Catches what holds EICAR; all else is answered so. */
export function seeing(answer: (peer: Peer) => void = ({ socket }) => socket.write(CLEAN)): Script {
  return {
    complete: (peer) => {
      if (hasEicar(peer.received())) peer.socket.write(INFECTED);
      else answer(peer);
    },
  };
}

/** As `seeing`, where the harmless canary is clean. */
export function toMedia(answer: (peer: Peer) => void): Script {
  return seeing((peer) => {
    if (peer.received().includes("A harmless text file")) peer.socket.write(CLEAN);
    else answer(peer);
  });
}
