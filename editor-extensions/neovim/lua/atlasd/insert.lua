--- Putting a suggestion, or a part of it, into the buffer, and telling the daemon.
local client_of = require("atlasd.client")
local text = require("atlasd.text")
local M = {}

---@class atlasd.Suggestion
---@field text string
---@field row integer 0-based line of the cursor when it was asked for
---@field col integer 0-based byte column then
---@field replace integer bytes right of the cursor that it replaces
---@field item table the LSP item, as it came

--- What of a suggestion is not yet typed at the cursor; nil when the buffer disagrees with it.
---@param buf integer
---@param suggestion atlasd.Suggestion
---@return string?
function M.rest(buf, suggestion)
  local row, col = unpack(vim.api.nvim_win_get_cursor(0))
  row = row - 1
  local ok, typed = pcall(vim.api.nvim_buf_get_text, buf, suggestion.row, suggestion.col, row, col, {})
  if not ok then
    return
  end
  return text.rest(suggestion.text, table.concat(typed, "\n"))
end

--- Accept all, a word or a line. Returns the text that is left to accept, nil if nothing was done.
---@param buf integer
---@param suggestion atlasd.Suggestion
---@param what "all"|"word"|"line"
---@return string?
function M.accept(buf, suggestion, what)
  local rest = M.rest(buf, suggestion)
  if not rest or rest == "" then
    return
  end
  local part = text.part(rest, what)
  local left = rest:sub(#part + 1)
  local client = client_of.of(buf)
  if client and left ~= "" then
    -- Told before the buffer changes, so that the bridge does not read the edit as a fate too.
    local taken = suggestion.text:sub(1, #suggestion.text - #left)
    client_of.call(client, "notify", "textDocument/didPartiallyAcceptCompletion", {
      item = suggestion.item,
      acceptedLength = text.utf16(taken),
    })
  end
  local row, col = unpack(vim.api.nvim_win_get_cursor(0))
  local line = vim.api.nvim_get_current_line()
  local stop = left == "" and math.min(col + suggestion.replace, #line) or col
  local lines = vim.split(part, "\n", { plain = true })
  -- Undone by itself: what was typed before stays.
  vim.bo[buf].undolevels = vim.bo[buf].undolevels
  vim.api.nvim_buf_set_text(buf, row - 1, col, row - 1, stop, lines)
  local last = #lines
  vim.api.nvim_win_set_cursor(0, { row + last - 1, (last == 1 and col or 0) + #lines[last] })
  if client and left == "" and suggestion.item.command then
    client_of.execute(suggestion.item.command.command, suggestion.item.command.arguments, function() end)
  end
  return left
end

--- Tell the daemon that a suggestion was shown or dismissed.
---@param buf integer
---@param suggestion atlasd.Suggestion
---@param method string
function M.tell(buf, suggestion, method)
  local client = client_of.of(buf)
  if client then
    client_of.call(client, "notify", method, { item = suggestion.item })
  end
end

return M
