/** Workers of one primary in one process: their records, and the primary's far end. */
import { Channel } from "../../src/cluster/channel.ts";
import { type Hint, type PrimaryNews, recordQuestion } from "../../src/cluster/messages.ts";
import { RecordStore } from "../../src/cluster/record-store.ts";
import { WorkerRecords } from "../../src/cluster/records.ts";
import { type PipeEnd, pipe } from "./pipe.ts";

export interface TestWorker {
  readonly records: WorkerRecords;
  /** Its own end of the pipe, and the primary's. */
  readonly port: PipeEnd;
  readonly far: PipeEnd;
  readonly logged: string[];
  /** As if its process had died. */
  die(): void;
}

export function workersOf(count: number): readonly TestWorker[] {
  const store = new RecordStore({ maxEntries: 1000 });
  const channels: Channel[] = [];
  return Array.from({ length: count }, () => {
    const [port, far] = pipe();
    const logged: string[] = [];
    const note = (_details: object, message: string): void => void logged.push(message);
    const owner = {};
    const primary = new Channel(far, {
      answer: (question) => store.answer(recordQuestion.parse(question), owner),
      hear: (news) => channels.forEach((channel) => channel.tell(news)),
    });
    channels.push(primary);
    const channel = new Channel(port, {
      hear: (message) => {
        const news = message as PrimaryNews;
        if (news.news === "hint") records.hint(news satisfies Hint);
        else if (news.news === "missed") records.missed();
      },
    });
    const records = new WorkerRecords({ channel, log: { warn: note, info: note } });
    const die = (): void => {
      port.stuck = true;
      channels.splice(channels.indexOf(primary), 1);
      store.gone(owner);
      records[Symbol.dispose]();
    };
    return { records, port, far, logged, die };
  });
}
