/**
 * Chat messages and what comes out of a stream of tokens.
 * @module
 */

/** One part of a message's content, as OpenAI writes it; only text parts are accepted. */
export interface TextPart {
  type: "text";
  text: string;
}

/** A tool call in the history: arguments as JSON text or as an object. */
export interface MessageToolCall {
  id?: string;
  type?: "function";
  function: { name: string; arguments: string | Record<string, unknown> | null };
}

/** A message of a chat. `developer` counts as `system`. */
export interface Message {
  role: "system" | "developer" | "user" | "assistant" | "tool";
  content?: string | TextPart[] | null;
  name?: string;
  tool_calls?: MessageToolCall[];
  toolCalls?: MessageToolCall[];
  tool_call_id?: string;
  reasoning_content?: string;
}

/** A tool that the model may call, as OpenAI writes it. */
export interface Tool {
  type: "function";
  function: { name: string; description?: string; parameters?: Record<string, unknown>; strict?: boolean | null };
}

/** A finished tool call of a result. `arguments` is the text as the model wrote it, checked to be JSON. */
export interface ToolCall {
  id: string;
  name: string;
  arguments: string;
}

/** A piece of a tool call in a stream; `id` and `name` come once, in the first piece of each index. */
export interface ToolCallDelta {
  index: number;
  id?: string;
  name?: string;
  arguments?: string;
}

/** What some tokens added to the visible result. */
export interface TextDelta {
  text: string;
  reasoning: string;
  toolCalls: ToolCallDelta[];
  /** A stop string was found: the text before it is out, nothing more will come. */
  stopped: boolean;
}
