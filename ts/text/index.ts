/**
 * Everything between tokens and text: tokenizer, chat template, streaming output.
 * @module
 */
export { Detokenizer } from "./detokenizer.js";
export { type EncodeAsyncOptions, type EncodeOptions, type EncodeResult, type Segment, Tokenizer } from "./tokenizer.js";
export type { AddedToken } from "./tokenizer-files.js";
export type { Message, MessageToolCall, TextDelta, TextPart, Tool, ToolCall, ToolCallDelta } from "./types.js";
