/**
 * How many drafts the next step verifies. A fixed number, or what pays (`"auto"`): decided from the share of drafts that are accepted, and
 * from how long steps take with and without them at the batch of the moment.
 *
 * Times are compared in pairs. What a step takes depends on batch, context, machine and neighbours, which all drift; so the policy tries
 * another number of drafts for a few steps now and then, and keeps the ratio of these to the steps right before. A batch that was not
 * measured yet is taken to be like the nearest one that was.
 *
 * Answers do not depend on any of this: a draft is accepted only if it is the token that would have been drawn without it
 * (docs/numerics.md, 5), so the number of drafts may change with every step.
 * @module
 */

import { speedup, stepLength } from "./speculation.js";

/** Steps of one kind in a row that are measured, and those before them that are not: they may be recorded, and follow others. */
const MEASURED_STEPS = 8;
const SKIPPED_STEPS = 3;

/** Steps between trials: the first few, later ones of a number of drafts that may be better, and of one that is far behind. */
const STEPS_BETWEEN_FIRST_TRIALS = 32;
const FEW_SAMPLES = 4;
const FEW_HOPELESS_SAMPLES = 3;
const STEPS_BETWEEN_TRIALS = 512;
const STEPS_BETWEEN_HOPELESS_TRIALS = 1024;
const HOPELESS = 0.8;

/** Another number of drafts has to be better by so much: what is measured has noise. */
const LEAST_GAIN = 1.03;

/** What one draft adds to a step where nothing has been measured; and how often it is taken to be accepted. */
const FIRST_COST = 0.25;
const FIRST_SHARE = 0.8;

/** Weight of the newest observation, once there are as many as that makes. */
const SHARE_WEIGHT = 1 / 256;
const COST_WEIGHT = 1 / 3;

/** A running mean: of all values at first, then of the latest. */
class RunningMean {
  readonly #weight: number;
  #count = 0;
  #mean = 0;

  constructor(weight: number) {
    this.#weight = weight;
  }

  get value(): number | undefined {
    return this.#count === 0 ? undefined : this.#mean;
  }

  get count(): number {
    return this.#count;
  }

  add(value: number): void {
    this.#count += 1;
    this.#mean += (value - this.#mean) * Math.max(this.#weight, 1 / this.#count);
  }
}

/** How drafts fare, by their place in a step: counts of all, and shares of the latest. */
class Acceptance {
  /** Drafts that were verified behind accepted ones only, and those accepted, by place. */
  readonly tried: number[] = [];
  readonly accepted: number[] = [];
  readonly #shares: RunningMean[] = [];

  count(drafts: number, accepted: number): void {
    for (let place = 0; place <= accepted && place < drafts; place++) {
      const taken = place < accepted;
      this.tried[place] = (this.tried[place] ?? 0) + 1;
      this.accepted[place] = (this.accepted[place] ?? 0) + Number(taken);
      this.#shares[place] ??= new RunningMean(SHARE_WEIGHT);
      this.#shares[place]?.add(Number(taken));
    }
  }

  /** Of the drafts at each place that were tried, the share that was accepted of late. */
  get shares(): number[] {
    return this.#shares.map((share) => share.value as number);
  }
}

/** Steps of one batch bucket and one number of drafts, one after another. */
interface Stretch {
  bucket: Bucket;
  drafts: number;
  steps: number;
  /** The latest, in milliseconds. */
  times: number[];
}

/** What is known of a range of batch sizes. */
class Bucket {
  /** Of a step with `drafts` drafts (the index), its time over that of one without. */
  readonly #costs: RunningMean[] = [];
  /** Of the batch sizes: the logarithm of the largest. */
  readonly key: number;
  drafts: number;
  /** Steps since the last trial. */
  steps = 0;

  constructor(key: number, drafts: number) {
    this.key = key;
    this.drafts = drafts;
  }

  /** Undefined where it was not measured. */
  cost(drafts: number): number | undefined {
    return drafts === 0 ? 1 : this.#costs[drafts]?.value;
  }

  /** How often it was measured. */
  samples(drafts: number): number {
    return this.#costs[drafts]?.count ?? 0;
  }

  learn(drafts: number, cost: number): void {
    this.#costs[drafts] ??= new RunningMean(COST_WEIGHT);
    this.#costs[drafts]?.add(cost);
  }

  get measured(): boolean {
    return this.#costs.length > 0;
  }
}

/** What speculation did since the engine was loaded, and what it does now. */
export interface SpeculationStats {
  /** Drafts that a sequence's step verified last: what is thought to pay at the batch of the moment. */
  drafts: number;
  /** Steps of a sequence that verified drafts, drafts in them, and those that were accepted. */
  draftedSteps: number;
  draftTokens: number;
  acceptedTokens: number;
  /** Accepted drafts by their place in a step. */
  acceptedByPlace: number[];
  /** Tokens that a step with as many drafts draws now, on average; 1 without. */
  stepLength: number;
  /** How much faster tokens come than without drafts, as estimated; 1 without. */
  speedup: number;
}

export class DraftPolicy {
  readonly #most: number;
  readonly #auto: boolean;
  readonly #acceptance = new Acceptance();
  readonly #buckets = new Map<number, Bucket>();
  #trial: { bucket: Bucket; drafts: number } | undefined;
  #now: Stretch | undefined;
  #before: Stretch | undefined;
  #last: { bucket: Bucket | undefined; drafts: number } = { bucket: undefined, drafts: 0 };
  #draftedSteps = 0;
  #draftTokens = 0;

  /** At most `most` drafts (0: none), always as many unless `auto`. */
  constructor(most: number, auto: boolean) {
    this.#most = most;
    this.#auto = auto && most > 0;
  }

  /** Drafts for each sequence of a step in which `batch` of them decode. */
  drafts(batch: number): number {
    if (!this.#auto) return this.#most;
    if (batch === 0) return 0;
    const bucket = this.#bucket(batch);
    const drafts = this.#trial?.bucket === bucket ? this.#trial.drafts : bucket.drafts;
    this.#last = { bucket, drafts };
    return drafts;
  }

  /** Counts what became of a sequence's drafts in one step. */
  count(drafts: number, accepted: number): void {
    if (drafts === 0) return;
    this.#draftedSteps += 1;
    this.#draftTokens += drafts;
    this.#acceptance.count(drafts, accepted);
  }

  /** Learns from the time of a step that only decoded, all of its sequences with as many drafts. */
  timed(batch: number, drafts: number, ms: number): void {
    if (!this.#auto) return;
    const bucket = this.#bucket(batch);
    const stretch = this.#stretch(bucket, drafts);
    stretch.steps += 1;
    stretch.times.push(ms);
    if (stretch.times.length > MEASURED_STEPS) stretch.times.shift();
    bucket.steps += 1;
    if (stretch.steps < SKIPPED_STEPS + MEASURED_STEPS) return;
    if (stretch.steps === SKIPPED_STEPS + MEASURED_STEPS) this.#learn(stretch);
    if (this.#trial?.bucket === bucket) {
      if (drafts !== this.#trial.drafts) return; // of steps that were under way when the trial began
      this.#trial = undefined;
      this.#decide(bucket);
    } else if (drafts === bucket.drafts) this.#mayTry(bucket);
  }

  get stats(): SpeculationStats {
    const drafts = this.#auto ? this.#last.drafts : this.#most;
    const { bucket } = this.#last;
    const length = stepLength(this.#acceptance.shares, drafts);
    return {
      drafts,
      draftedSteps: this.#draftedSteps,
      draftTokens: this.#draftTokens,
      acceptedTokens: this.#acceptance.accepted.reduce((sum, count) => sum + count, 0),
      acceptedByPlace: [...this.#acceptance.accepted],
      stepLength: length,
      speedup: bucket === undefined ? length : this.#gain(bucket, drafts),
    };
  }

  /** Batches of the next power of two: the runner's programs, but for sizes that its user chose. */
  #bucket(batch: number): Bucket {
    const key = Math.ceil(Math.log2(batch));
    let bucket = this.#buckets.get(key);
    if (bucket === undefined) {
      bucket = new Bucket(key, this.#measuredNear(key)?.drafts ?? 1);
      this.#buckets.set(key, bucket);
    }
    return bucket;
  }

  #stretch(bucket: Bucket, drafts: number): Stretch {
    if (this.#now?.bucket === bucket && this.#now.drafts === drafts) return this.#now;
    this.#before = this.#now;
    this.#now = { bucket, drafts, steps: 0, times: [] };
    return this.#now;
  }

  /** Compares a stretch with the one right before it. */
  #learn(now: Stretch): void {
    const before = this.#before;
    if (before?.bucket !== now.bucket || before.steps < SKIPPED_STEPS + MEASURED_STEPS) return;
    const ratio = undisturbed(now.times) / undisturbed(before.times);
    const { bucket } = now;
    if (now.drafts === 0) bucket.learn(before.drafts, 1 / ratio);
    else {
      const cost = bucket.cost(before.drafts);
      if (cost !== undefined) bucket.learn(now.drafts, ratio * cost);
    }
  }

  /** Keeps to what there is, unless something else is better by more than noise. */
  #decide(bucket: Bucket): void {
    bucket.steps = 0;
    bucket.drafts = this.#best(bucket, bucket.drafts);
  }

  #best(bucket: Bucket, current: number): number {
    let best = current;
    for (let drafts = 0; drafts <= this.#most; drafts++) {
      const least = this.#gain(bucket, best) * (best === current ? LEAST_GAIN : 1);
      if (bucket.cost(drafts) !== undefined && this.#gain(bucket, drafts) > least) best = drafts;
    }
    return best;
  }

  /** Begins a trial if one is due: of one draft more or less, whichever promises more. */
  #mayTry(bucket: Bucket): void {
    // Costs are told beside a step without drafts, which has to be measured first.
    if (bucket.cost(bucket.drafts) === undefined) this.#trial = { bucket, drafts: 0 };
    else {
      const near = [bucket.drafts - 1, bucket.drafts + 1].filter((drafts) => drafts >= 0 && drafts <= this.#most);
      const drafts = near.reduce((a, b) => (this.#gain(bucket, b) > this.#gain(bucket, a) ? b : a));
      if (bucket.steps >= this.#wait(bucket, drafts)) this.#trial = { bucket, drafts };
    }
  }

  /** Steps before this number of drafts is tried. */
  #wait(bucket: Bucket, drafts: number): number {
    const samples = bucket.samples(drafts === 0 ? bucket.drafts : drafts);
    const hopeless = this.#gain(bucket, drafts) < this.#gain(bucket, bucket.drafts) * HOPELESS;
    if (hopeless && (samples === 0 || samples >= FEW_HOPELESS_SAMPLES)) return STEPS_BETWEEN_HOPELESS_TRIALS;
    return samples < FEW_SAMPLES ? samples * STEPS_BETWEEN_FIRST_TRIALS : STEPS_BETWEEN_TRIALS;
  }

  #gain(bucket: Bucket, drafts: number): number {
    const { shares } = this.#acceptance;
    return speedup(stepLength(shares.length > 0 ? shares : [FIRST_SHARE], drafts), this.#cost(bucket, drafts));
  }

  /** As measured here, else along the line through no drafts and the most that were; else as in the nearest bucket that was measured. */
  #cost(bucket: Bucket, drafts: number): number {
    const known = bucket.cost(drafts);
    if (known !== undefined) return known;
    for (let fewer = drafts - 1; fewer > 0; fewer--) {
      const cost = bucket.cost(fewer);
      if (cost !== undefined) return 1 + ((cost - 1) * drafts) / fewer;
    }
    const like = this.#measuredNear(bucket.key);
    return like === undefined || like === bucket ? 1 + FIRST_COST * drafts : this.#cost(like, drafts);
  }

  /** The nearest bucket that was measured. */
  #measuredNear(key: number): Bucket | undefined {
    const measured = [...this.#buckets.values()].filter((bucket) => bucket.measured);
    return measured.sort((a, b) => Math.abs(a.key - key) - Math.abs(b.key - key))[0];
  }
}

/** The lower quartile: what else the machine does makes some steps longer, and none shorter. */
function undisturbed(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[sorted.length >> 2] as number;
}
