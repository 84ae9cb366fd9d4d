/** All rows, in the order in which they are measured. */
import type { Group } from "../row.ts";
import { cold } from "./cold.ts";
import { remembering, workers } from "./features.ts";
import { growth } from "./growth.ts";
import { large } from "./large.ts";
import { ownProcess } from "./process.ts";
import { realScanner } from "./real-scanner.ts";
import { repeated } from "./repeated.ts";
import { sharing } from "./sharing.ts";
import { uploads } from "./uploads.ts";

export const GROUPS: readonly Group[] = [cold, uploads, realScanner, repeated, remembering, workers, large, sharing, ownProcess, growth];
