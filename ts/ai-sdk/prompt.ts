/**
 * A prompt of the AI SDK as messages and tools of a chat.
 * @module
 */

import {
  type LanguageModelV3CallOptions,
  type LanguageModelV3FunctionTool,
  type LanguageModelV3Message,
  type LanguageModelV3Prompt,
  type LanguageModelV3ToolResultPart,
  type SharedV3Warning,
  UnsupportedFunctionalityError,
} from "@ai-sdk/provider";
import type { Message, MessageToolCall, Tool } from "../index.js";

type AssistantMessage = Extract<LanguageModelV3Message, { role: "assistant" }>;

/** The messages as the engine takes them: one message of results for each tool result. */
export function chatMessages(prompt: LanguageModelV3Prompt): Message[] {
  return prompt.flatMap(messagesOf);
}

function messagesOf(message: LanguageModelV3Message): Message[] {
  switch (message.role) {
    case "system":
      return [{ role: "system", content: message.content }];
    case "user":
      return [{ role: "user", content: message.content.map((part) => ({ type: "text", text: textOf(part) })) }];
    case "assistant":
      return [assistantMessage(message)];
    case "tool":
      return message.content.map((part) => {
        if (part.type !== "tool-result") throw unsupported(`a ${part.type} in a tool's message`);
        return { role: "tool", tool_call_id: part.toolCallId, content: resultText(part) };
      });
  }
}

/** Functions as tools; what can't be one is left out with a warning. */
export function chatTools(tools: LanguageModelV3CallOptions["tools"]): { tools: Tool[]; warnings: SharedV3Warning[] } {
  const warnings: SharedV3Warning[] = [];
  const functions: Tool[] = [];
  for (const tool of tools ?? []) {
    if (tool.type === "provider") {
      warnings.push({ type: "unsupported", feature: `provider tool ${tool.id}`, details: "the engine runs no tools of its own" });
      continue;
    }
    if (tool.inputExamples !== undefined)
      warnings.push({ type: "unsupported", feature: "inputExamples", details: `examples of ${tool.name} are not shown to the model` });
    functions.push(functionTool(tool));
  }
  return { tools: functions, warnings };
}

function functionTool({ name, description, inputSchema, strict }: LanguageModelV3FunctionTool): Tool {
  return {
    type: "function",
    function: {
      name,
      ...(description !== undefined && { description }),
      parameters: inputSchema as Record<string, unknown>,
      ...(strict !== undefined && { strict }),
    },
  };
}

function assistantMessage({ content }: AssistantMessage): Message {
  let [text, reasoning] = ["", ""];
  const calls: MessageToolCall[] = [];
  for (const part of content) {
    if (part.type === "reasoning") reasoning += part.text;
    else if (part.type === "tool-call") {
      const input = typeof part.input === "string" ? part.input : JSON.stringify(part.input ?? {});
      calls.push({ id: part.toolCallId, type: "function", function: { name: part.toolName, arguments: input } });
    } else if (part.type === "text") text += part.text;
    else throw unsupported(`a ${part.type} in an assistant's message`);
  }
  return {
    role: "assistant",
    content: text,
    ...(reasoning !== "" && { reasoning_content: reasoning }),
    ...(calls.length > 0 && { tool_calls: calls }),
  };
}

function textOf(part: { type: "text"; text: string } | { type: "file"; mediaType: string }): string {
  if (part.type === "text") return part.text;
  throw unsupported(`a file of type ${part.mediaType}: the model reads text`);
}

/** What the model reads of a tool's result. */
function resultText({ output }: LanguageModelV3ToolResultPart): string {
  switch (output.type) {
    case "text":
    case "error-text":
      return output.value;
    case "json":
    case "error-json":
      return JSON.stringify(output.value);
    case "execution-denied":
      return output.reason ?? "The call was denied.";
    case "content":
      return output.value
        .map((part) => {
          if (part.type === "text") return part.text;
          throw unsupported(`a ${part.type} in a tool's result`);
        })
        .join("");
  }
}

function unsupported(functionality: string): UnsupportedFunctionalityError {
  return new UnsupportedFunctionalityError({ functionality });
}
