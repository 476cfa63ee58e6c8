--- Pure text: how much of a suggestion is a word, a line, already typed.
local M = {}

--- The part of `text` that accepting a word, a line or all of it inserts.
---@param text string
---@param what "all"|"word"|"line"
---@return string
function M.part(text, what)
  if what == "line" then
    local head = text:match("^\n?[^\n]*")
    -- A line that is only its break would insert nothing to see: take the next one with it.
    return head == "\n" and text:match("^\n\n?[^\n]*") or head
  elseif what == "word" then
    return text:match("^%s*[%w_\128-\255]+") or text:match("^%s*[^%w_%s\128-\255]+") or text
  end
  return text
end

--- What is left of `text` once `typed` stands in the buffer; nil when they disagree.
---@param text string
---@param typed string
---@return string?
function M.rest(text, typed)
  if text:sub(1, #typed) == typed then
    return text:sub(#typed + 1)
  end
end

--- Byte offset of an LSP position in its line; the line's end for what lies behind it.
---@param line string
---@param character integer
---@param encoding "utf-8"|"utf-16"|"utf-32"
---@return integer
function M.byte(line, character, encoding)
  if vim.fn.has("nvim-0.11") == 1 then
    return vim.str_byteindex(line, encoding, character, false)
  elseif encoding == "utf-8" then
    return math.min(character, #line)
  end
  local ok, byte = pcall(vim.str_byteindex, line, character, encoding == "utf-16")
  return ok and byte or #line
end

--- UTF-16 code units of a string, as LSP counts accepted lengths.
---@param text string
---@return integer
function M.utf16(text)
  local _, units = vim.str_utfindex(text)
  return units
end

return M
