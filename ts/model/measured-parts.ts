/**
 * What the parts of a decode step take on one NVIDIA H100, measured at LongCat-Flash's sizes: the figures of docs/performance.md (a test compares
 * them with that page), exchanges between GPUs, and links. From these `ts/model/parallel-cost.ts` works out how long steps of many ranks take.
 * @module
 */

import type { ModelConfig } from "./config.js";
import { shapeConfig } from "./shapes.js";

/** Measured µs by some count, ascending: straight lines between points, the nearest two's line beyond them. */
export type Curve = readonly (readonly [at: number, us: number])[];

/** What a curve says at `at`; never less than half of its least point. */
export function onCurve(curve: Curve, at: number): number {
  const behind = curve.findIndex(([x]) => x >= at);
  const i = Math.max(1, behind < 0 ? curve.length - 1 : behind);
  const [[x0, y0], [x1, y1]] = [curve[i - 1]!, curve[i]!];
  return Math.max(y0 + ((at - x0) / (x1 - x0)) * (y1 - y0), Math.min(y0, y1) / 2);
}

/** The same over a second count: a curve at each of some values. */
export type Surface = readonly (readonly [at: number, curve: Curve])[];

export function onSurface(surface: Surface, at: number, along: number): number {
  return onCurve(
    surface.map(([x, curve]) => [x, onCurve(curve, along)] as const),
    at,
  );
}

/** Matrices whose times are known. */
export type MeasuredDType = "bfloat16" | "fp8";

/** Operations by rows of a step: tokens that a rank has. */
export interface RowParts {
  /** q_a, q_b, kv_a with norms, rotation and cache. */
  project: Curve;
  /** o. */
  output: Curve;
  /** A dense FFN. */
  dense: Curve;
  /** The experts of a rank: by how many it holds, then by rows of each. */
  experts: Surface;
}

export const ROW_PARTS: Readonly<Record<MeasuredDType, RowParts>> = {
  bfloat16: {
    project: [
      [1, 27.3],
      [16, 30.0],
      [64, 34.7],
      [256, 61.4],
      [1024, 160.2],
    ],
    output: [
      [1, 41.9],
      [16, 43.5],
      [64, 46.8],
      [256, 56.9],
      [1024, 144.6],
    ],
    dense: [
      [1, 165.9],
      [16, 173.1],
      [64, 199.4],
      [256, 231.5],
      [1024, 755.2],
      [4096, 2993],
    ],
    experts: [
      [
        4,
        [
          [1, 95.3],
          [4, 122.0],
          [16, 121.2],
          [64, 133.7],
          [128, 177.7],
          [512, 386.9],
        ],
      ],
      [
        16,
        [
          [1, 246.3],
          [4, 422.2],
          [16, 428.4],
          [64, 467.0],
          [128, 551.2],
          [512, 1556],
        ],
      ],
      [
        64,
        [
          [1, 1177],
          [4, 1617],
          [16, 1669],
          [64, 1839],
          [128, 2126],
          [512, 5985],
        ],
      ],
    ],
  },
  fp8: {
    project: [
      [1, 23.9],
      [16, 25.1],
      [64, 40.4],
      [256, 132.0],
      [1024, 280.5],
    ],
    output: [
      [1, 28.3],
      [16, 30.4],
      [64, 38.4],
      [256, 65.3],
      [1024, 203.5],
    ],
    dense: [
      [1, 101.2],
      [16, 101.4],
      [64, 143.0],
      [256, 254.2],
      [1024, 936.1],
      [4096, 3631],
    ],
    experts: [
      [
        4,
        [
          [1, 60.0],
          [4, 75.5],
          [16, 85.1],
          [64, 171.3],
          [128, 173.1],
          [512, 427.6],
        ],
      ],
      [
        16,
        [
          [1, 166.3],
          [4, 235.3],
          [16, 255.3],
          [64, 548.4],
          [128, 546.0],
          [512, 1627],
        ],
      ],
      [
        64,
        [
          [1, 530.9],
          [4, 873.9],
          [16, 1021],
          [64, 2037],
          [128, 2192],
          [512, 6259],
        ],
      ],
    ],
  },
};

/** Of any matrices: the router's are float32, the head's bfloat16. */
export const NORM: Curve = [
  [1, 1.8],
  [64, 3.7],
  [1024, 27.5],
];
export const ROUTER: Curve = [
  [1, 11.8],
  [16, 14.0],
  [64, 19.4],
  [256, 37.9],
  [1024, 110.2],
];
export const HEAD: Curve = [
  [1, 538.9],
  [16, 564.3],
  [64, 578.3],
  [256, 861.8],
];
/** With a temperature. */
export const SAMPLE: Curve = [
  [1, 59.4],
  [64, 157.2],
];

/** Decode attention, 64 heads, bfloat16, the products by W_k and W_v included: by cached tokens of each sequence, then by sequences. */
export const ATTENTION: Surface = [
  [
    1024,
    [
      [1, 35.8],
      [8, 40.6],
      [32, 44.0],
      [128, 93.7],
    ],
  ],
  [
    4096,
    [
      [1, 36.9],
      [8, 45.0],
      [32, 95.0],
      [128, 293.4],
    ],
  ],
  [
    16384,
    [
      [1, 43.0],
      [8, 105.8],
      [32, 354.1],
      [128, 1173],
    ],
  ],
  [
    32768,
    [
      [1, 58.9],
      [8, 156.5],
      [32, 567.8],
      [128, 2031],
    ],
  ],
];

/** Whether these are the parts of a model's layers: all sizes of LongCat-Flash's but the number of layers, experts and positions. */
export function isMeasured(config: ModelConfig): boolean {
  const flash = shapeConfig("flash");
  const sizes = [
    ...(["hiddenSize", "numHeads", "ffnHiddenSize", "expertFfnHiddenSize", "topK", "qLoraRank", "kvLoraRank"] as const),
    ...(["qkNopeHeadDim", "qkRopeHeadDim", "vHeadDim", "vocabSize"] as const),
  ];
  return config.ngram === null && sizes.every((size) => config[size] === flash[size]);
}

/**
 * Our own exchange between two NVIDIA H200 on NVLink, recorded: by rows that a rank sends to the other, 6144 bfloat16 numbers each or FP8 codes with
 * scales; as many stay at home. From docs/performance.md as well.
 */
export const WINDOW_EXCHANGE: Readonly<Record<"dispatch" | "dispatchFp8" | "combine", Curve>> = {
  dispatch: [
    [1, 8.0],
    [8, 7.6],
    [64, 8.7],
    [128, 12.3],
    [512, 31.2],
    [1024, 55.2],
    [4096, 193.9],
  ],
  dispatchFp8: [
    [1, 10.2],
    [8, 10.0],
    [64, 11.7],
    [128, 15.6],
    [512, 35.0],
    [1024, 64.2],
    [4096, 220.3],
  ],
  combine: [
    [1, 5.4],
    [8, 6.0],
    [64, 7.1],
    [128, 9.9],
    [512, 35.8],
    [1024, 60.6],
    [4096, 211.8],
  ],
};

/** How long a rank needs to send so many bytes in one direction, and to receive as many: µs by bytes. */
export type Link = Curve;

/** A link of a latency and a bandwidth. */
export function straightLink(latencyUs: number, gigabytesPerSecond: number): Link {
  return [
    [0, latencyUs],
    [1e9, latencyUs + 1e6 / gigabytesPerSecond],
  ];
}

/** What NVLink itself takes between two H100s: 132 blocks' stores, and half of a flag's round trip between kernels. */
export const NVLINK_FLOOR = straightLink(0.9, 369);

/** All-to-all of NCCL 2.28.9 between two H100s on NVLink, ten of them in a captured graph: by bytes to the peer. */
export const NVLINK_NCCL: Link = [
  [12_288, 10.3],
  [98_304, 10.8],
  [786_432, 17.2],
  [1_572_864, 20.7],
  [6_291_456, 45.0],
  [12_582_912, 69.9],
  [50_331_648, 203.9],
];

/** Assumed, not measured: InfiniBand of 400 Gb/s a GPU, of which 40 GB/s arrive (what the model's report counts on), 20 µs for a message. */
export const INFINIBAND_ASSUMED = straightLink(20, 40);
