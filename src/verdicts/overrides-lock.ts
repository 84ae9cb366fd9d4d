/** A lock between processes that the kernel takes back from one that dies. Node has none of its own, so it is SQLite's, on a database that stays empty. */
import { DatabaseSync } from "node:sqlite";
import { setTimeout as sleep } from "node:timers/promises";

/** Milliseconds between two tries. */
const RETRY = 20;
/** SQLITE_BUSY: somebody else has it. */
const BUSY = 5;

/** @param path of a file that is there, and that nothing else is kept in @param patience milliseconds @returns undefined when somebody else has it all that time */
export async function lockFile(path: string, patience: number): Promise<Disposable | undefined> {
  const database = new DatabaseSync(path, { timeout: 0 });
  try {
    for (let waited = 0; ; waited += RETRY) {
      if (tryLock(database)) return { [Symbol.dispose]: () => database.close() };
      if (waited >= patience) break;
      await sleep(RETRY);
    }
  } catch (error) {
    database.close();
    throw error;
  }
  database.close();
  return undefined;
}

function tryLock(database: DatabaseSync): boolean {
  try {
    // A journal in a file would be left behind by one that dies.
    database.exec("PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE");
    return true;
  } catch (error) {
    if (error instanceof Error && "errcode" in error && error.errcode === BUSY) return false;
    throw error;
  }
}
