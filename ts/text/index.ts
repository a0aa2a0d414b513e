/**
 * Everything between tokens and text: tokenizer, chat template, streaming output.
 * @module
 */
export { Detokenizer } from "./detokenizer.js";
export { type EncodeAsyncOptions, type EncodeOptions, type EncodeResult, type Segment, Tokenizer } from "./tokenizer.js";
export type { AddedToken } from "./tokenizer-files.js";
export type { Message, MessageToolCall, TextDelta, TextPart, Tool, ToolCall, ToolCallDelta } from "./types.js";
export { type ChatAnswer, ChatTemplate, type EncodedChat, type ReasoningStart, type RenderedChat } from "./chat-template.js";
export { type ChatPrompt, type CheckedChat, type ToolChoice, validateChat } from "./messages.js";
export { OutputParser, type OutputParserOptions, type ParsedOutput } from "./output-parser.js";
export { StopScanner } from "./stop-scanner.js";
export { type CallForm, ToolCallParser, type ToolFormat } from "./tool-call-parser.js";
