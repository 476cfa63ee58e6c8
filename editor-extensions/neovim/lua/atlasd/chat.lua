--- Chat about a selection, streamed into a scratch window.
local client = require("atlasd.client")
local M = {}

local window_of = {} ---@type table<string, integer> buffer by stream token

local function append(buf, text)
  if not vim.api.nvim_buf_is_valid(buf) then
    return
  end
  local last = vim.api.nvim_buf_line_count(buf) - 1
  local column = #vim.api.nvim_buf_get_lines(buf, last, last + 1, false)[1]
  vim.api.nvim_buf_set_text(buf, last, column, last, column, vim.split(text, "\n", { plain = true }))
end

function M.on_text(params)
  local buf = window_of[params.token]
  if buf then
    append(buf, params.text)
  end
end

---@param prompt string
---@param first integer first line of the selection, 1-based; 0 for none
---@param last integer
function M.ask(prompt, first, last)
  local source = vim.api.nvim_get_current_buf()
  local selection = ""
  if first > 0 then
    selection = table.concat(vim.api.nvim_buf_get_lines(source, first - 1, last, false), "\n")
  end
  local token = tostring(vim.uv.hrtime())
  local language = vim.bo[source].filetype
  local uri = vim.uri_from_bufnr(source)
  client.execute("atlasd.chat", { prompt, selection, language, token, uri }, function(err)
    if err and window_of[token] then
      append(window_of[token], "\n" .. err.message)
    end
    window_of[token] = nil
  end)
  vim.cmd.new()
  local buf = vim.api.nvim_get_current_buf()
  vim.bo[buf].buftype, vim.bo[buf].bufhidden, vim.bo[buf].filetype = "nofile", "wipe", "markdown"
  window_of[token] = buf
end

return M
