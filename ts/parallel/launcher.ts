/**
 * What a cluster's launcher has told this process by environment variables: its place among the processes of one group. There is no cluster
 * manager of our own.
 * @module
 */

import { createHash } from "node:crypto";
import { invalid } from "../checks.js";
import { LongcatError } from "../errors.js";

/** One of several processes that a launcher started for one group. Each has ranks / processes ranks. */
export interface LauncherPlace {
  /** Its number, and how many there are. The leader is number 0. */
  index: number;
  processes: number;
  /** Its number among those of its host, and how many there are. */
  localIndex: number;
  localProcesses: number;
  /** Where the leader listens: for control there, and on several hosts for requests at the next port. */
  address: string;
  port: number;
  /** What ranks and leader prove to each other that they know. */
  token: string;
  /** Who started the processes, for messages. */
  launcher: string;
}

/** Whether all processes are on this host. */
export function isOneHost(place: Pick<LauncherPlace, "processes" | "localProcesses"> | undefined): boolean {
  return place === undefined || place.localProcesses === place.processes;
}

/** Variables by name, as `process.env` has them. */
export type Environment = Readonly<Record<string, string | undefined>>;

/** Where the leader listens if no variable says so. */
export const DEFAULT_PORT = 29_517;
/** The last of which two more follow. */
const MOST_PORT = 65_533;

/** LONGCAT_PARALLEL_TOKEN: a secret that all processes of a group share. */
export const TOKEN_VARIABLE = "LONGCAT_PARALLEL_TOKEN";

/** Names of variables: a number from 0, and how many there are. */
type Names = readonly [number: string, count: string];

/** What a launcher says, but for what all may say in the same variables. */
interface Found extends Pick<LauncherPlace, "index" | "processes" | "localIndex" | "localProcesses" | "launcher"> {
  /** The variables that say which process of all this is, and which of its host; absent: it is alone there. */
  names: Names;
  localNames?: Names;
  /** Host of process 0; absent: MASTER_ADDR has to say. */
  address?: string;
  /** What tells this run from others on the same hosts. */
  job: string | undefined;
}

/**
 * This process's place. undefined: it was started alone.
 *
 * @throws LongcatError OPTION_INVALID: a variable makes no sense, or the leader's address is missing
 */
export function launcherPlace(env: Environment = process.env): LauncherPlace | undefined {
  const found = launched(env);
  return found && placeOf(found, env);
}

/** Who has started this process as one of several. undefined: it was started alone. */
export function launched(env: Environment = process.env): Found | undefined {
  for (const find of [torchrun, openMpi, slurm, leaderWorkerSet]) {
    const found = find(env);
    if (found !== undefined && found.processes > 1) return found;
  }
  return undefined;
}

function placeOf(found: Found, env: Environment): LauncherPlace {
  checkNumbers(found);
  const { job, address, names: _, localNames, ...place } = found;
  const { processes, launcher } = place;
  const leader = isOneHost(place) ? "127.0.0.1" : (env["MASTER_ADDR"] ?? address);
  if (leader === undefined)
    throw new LongcatError(
      "OPTION_INVALID",
      `MASTER_ADDR: is missing; give the host of process 0 of the ${processes} that ${launcher} started`,
    );
  checkHosts(place, leader, localNames);
  const port = portOf(env);
  const token = env[TOKEN_VARIABLE] || createHash("sha256").update(`${launcher} ${job} ${leader} ${port}`).digest("hex");
  return { ...place, address: leader, port, token };
}

/** Numbers are below counts, and what is on one host is part of all. */
function checkNumbers({ index, processes, names: [name, countName], localIndex, localProcesses, localNames }: Found): void {
  const below = (countName: string, count: number): string => `a number below ${countName}, which is ${count}`;
  if (index >= processes) throw invalid(name, index, below(countName, processes));
  if (localNames === undefined) return;
  const [localName, localCountName] = localNames;
  if (localIndex >= processes) throw invalid(localName, localIndex, below(countName, processes));
  if (localIndex >= localProcesses) throw invalid(localName, localIndex, below(localCountName, localProcesses));
  if (localProcesses > processes) throw invalid(localCountName, localProcesses, `at most ${countName}, which is ${processes}`);
}

/** Nobody on another host reaches a leader that is told to listen at a host's own address: then all are on this one, and have not been told so. */
function checkHosts(place: Pick<LauncherPlace, "processes" | "localProcesses">, leader: string, names: Names | undefined): void {
  if (isOneHost(place) || names === undefined || !/^(127\.|localhost$|::1$)/.test(leader)) return;
  const { processes, localProcesses } = place;
  throw new LongcatError(
    "OPTION_INVALID",
    `MASTER_ADDR: ${leader} is this host alone, and by ${names[1]} (without it: ${names[0]} + 1) ${localProcesses} of ${processes} processes run here; ` +
      `where all do, give each ${names[1]}=${processes}, and its number as ${names[0]}`,
  );
}

/** The port beside MASTER_PORT where torchrun's own store has that. */
function portOf(env: Environment): number {
  const port = number(env, "MASTER_PORT");
  if (port === undefined) return DEFAULT_PORT;
  // The one behind it is the requests', and torchrun may have taken the first.
  if (port < 1 || port > MOST_PORT)
    throw new LongcatError("OPTION_INVALID", `MASTER_PORT: ${port} is not accepted; give a port from 1 to ${MOST_PORT}`);
  return env["TORCHELASTIC_USE_AGENT_STORE"] === "True" ? port + 1 : port;
}

/** torchrun, and whoever else sets the variables of torch.distributed. */
function torchrun(env: Environment): Found | undefined {
  const place = numbers(env, "RANK", "WORLD_SIZE");
  if (place === undefined) return undefined;
  const job = env["TORCHELASTIC_RUN_ID"];
  return { ...place, ...localNumbers(env, "LOCAL_RANK", "LOCAL_WORLD_SIZE"), launcher: job ? "torchrun" : "a launcher", job };
}

function openMpi(env: Environment): Found | undefined {
  const place = numbers(env, "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE");
  if (place === undefined) return undefined;
  const local = localNumbers(env, "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE");
  return { ...place, ...local, launcher: "mpirun", job: env["PMIX_NAMESPACE"] ?? env["OMPI_MCA_ess_base_jobid"] };
}

/** A step that srun started. A batch script alone has SLURM_NTASKS too, and is one process. */
function slurm(env: Environment): Found | undefined {
  const place = numbers(env, "SLURM_PROCID", "SLURM_STEP_NUM_TASKS");
  if (place === undefined) return undefined;
  const localIndex = number(env, "SLURM_LOCALID") ?? 0;
  const tasks = tasksPerNode(env["SLURM_STEP_TASKS_PER_NODE"] ?? "");
  const localProcesses = tasks[number(env, "SLURM_NODEID") ?? 0] ?? localIndex + 1;
  const address = firstHost(env["SLURM_STEP_NODELIST"] ?? "");
  const job = `${env["SLURM_JOB_ID"]}.${env["SLURM_STEP_ID"]}`;
  const localNames: Names = ["SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE"];
  return { ...place, localIndex, localProcesses, localNames, ...(address && { address }), launcher: "srun", job };
}

/** Kubernetes' LeaderWorkerSet: one process a pod. */
function leaderWorkerSet(env: Environment): Found | undefined {
  const place = numbers(env, "LWS_WORKER_INDEX", "LWS_GROUP_SIZE");
  const address = env["LWS_LEADER_ADDRESS"];
  if (place === undefined) return undefined;
  return { ...place, localIndex: 0, localProcesses: 1, ...(address && { address }), launcher: "LeaderWorkerSet", job: address };
}

/** "2(x3),1" → [2, 2, 2, 1]. */
function tasksPerNode(list: string): number[] {
  return list.split(",").flatMap((part) => {
    const match = /^(\d+)(?:\(x(\d+)\))?$/.exec(part);
    return match ? new Array<number>(Number(match[2] ?? 1)).fill(Number(match[1])) : [];
  });
}

/** "node[03-05,9]-ib,other1" → "node03-ib"; undefined for "". */
function firstHost(list: string): string | undefined {
  const match = /^([^[,]+)(?:\[(\d+)[^\]]*\]([^,[]*))?/.exec(list);
  return match?.slice(1).join("");
}

/** A process's number and how many there are; undefined where the two are not both set. */
function numbers(env: Environment, ...names: Names): Pick<Found, "index" | "processes" | "names"> | undefined {
  const [index, processes] = names;
  if (!env[index] || !env[processes]) return undefined;
  return { index: number(env, index) as number, processes: number(env, processes) as number, names };
}

/** The same on its host, where it is alone if nothing else is said. */
function localNumbers(env: Environment, ...localNames: Names): Required<Pick<Found, "localIndex" | "localProcesses" | "localNames">> {
  const localIndex = number(env, localNames[0]) ?? 0;
  return { localIndex, localProcesses: number(env, localNames[1]) ?? localIndex + 1, localNames };
}

/** A variable's number; undefined where it is not set. */
function number(env: Environment, name: string): number | undefined {
  const value = env[name];
  if (value === undefined || value === "") return undefined;
  if (!/^\d{1,9}$/.test(value)) throw invalid(name, value, "a whole number, as launchers set it");
  return Number(value);
}
