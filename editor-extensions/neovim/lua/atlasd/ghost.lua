--- atlasd's own ghost text by extmarks, for Neovim without vim.lsp.inline_completion (and by choice).
local client_of = require("atlasd.client")
local config = require("atlasd.config")
local insert = require("atlasd.insert")
local text = require("atlasd.text")
local M = {}

local namespace = vim.api.nvim_create_namespace("atlasd.ghost")

---@class atlasd.GhostState
---@field suggestions atlasd.Suggestion[]
---@field index integer
---@field request integer? id of the request in flight
---@field asked integer number of the latest request; answers to older ones come too late
---@field timer uv.uv_timer_t?
---@field step integer? how far to go among the suggestions that were asked for
local states = {} ---@type table<integer, atlasd.GhostState>

local function state_of(buf)
  states[buf] = states[buf] or { suggestions = {}, index = 1, asked = 0 }
  return states[buf]
end

local function clear(buf)
  if vim.api.nvim_buf_is_valid(buf) then
    vim.api.nvim_buf_clear_namespace(buf, namespace, 0, -1)
  end
end

local function current(buf)
  local state = states[buf]
  return state and state.suggestions[state.index]
end

--- Draw what is left of the current suggestion at the cursor; nothing when it no longer fits.
local function draw(buf)
  clear(buf)
  local suggestion = current(buf)
  local rest = suggestion and insert.rest(buf, suggestion)
  if not rest or rest == "" or vim.fn.pumvisible() == 1 then
    return false
  end
  local row, col = unpack(vim.api.nvim_win_get_cursor(0))
  local lines = vim.split(rest, "\n", { plain = true })
  local below = {}
  for index = 2, #lines do
    below[#below + 1] = { { lines[index] == "" and " " or lines[index], "AtlasdGhost" } }
  end
  vim.api.nvim_buf_set_extmark(buf, namespace, row - 1, col, {
    virt_text = { { lines[1], "AtlasdGhost" } },
    virt_text_pos = suggestion.replace > 0 and "overlay" or "inline",
    virt_lines = #below > 0 and below or nil,
    hl_mode = "combine",
  })
  return true
end

local function cancel(buf)
  local state = state_of(buf)
  if state.timer then
    state.timer:stop()
    state.timer:close()
    state.timer = nil
  end
  local client = state.request and client_of.of(buf)
  if client then
    client_of.call(client, "cancel_request", state.request)
  end
  state.request = nil
  -- An answer may be on its way already, whatever is cancelled here.
  state.asked = state.asked + 1
end

---@param item table
---@param encoding string
local function suggestion_of(buf, item, encoding, row, col)
  local replace = 0
  if item.range then
    local line = vim.api.nvim_buf_get_lines(buf, row, row + 1, false)[1] or ""
    replace = math.max(0, text.byte(line, item.range["end"].character, encoding) - col)
  end
  local suggested = type(item.insertText) == "table" and item.insertText.value or item.insertText
  return { text = suggested, row = row, col = col, replace = replace, item = item }
end

local function inserting()
  return vim.startswith(vim.api.nvim_get_mode().mode, "i")
end

local function receive(buf, number, err, result, encoding, row, col)
  local state = state_of(buf)
  if number ~= state.asked then
    return
  end
  state.request = nil
  -- null keeps what is on screen; an empty list clears it.
  if err or not result or result == vim.NIL or vim.api.nvim_get_current_buf() ~= buf then
    return
  end
  if not inserting() then
    return
  end
  state.suggestions = vim.tbl_map(function(item)
    return suggestion_of(buf, item, encoding, row, col)
  end, result.items or result)
  -- Others were asked for from the first: show the next one of them.
  state.index = (#state.suggestions > 1 and state.step or 0) % math.max(1, #state.suggestions) + 1
  state.step = nil
  if draw(buf) then
    insert.tell(buf, current(buf), "textDocument/didShowCompletion")
  end
end

--- Ask for suggestions at the cursor now.
---@param buf integer
---@param invoked boolean
function M.request(buf, invoked)
  cancel(buf)
  local client = client_of.of(buf)
  if not client then
    return
  end
  local encoding = client.offset_encoding
  local params = vim.lsp.util.make_position_params(0, encoding)
  params.context = { triggerKind = invoked and 1 or 2 }
  local row, col = unpack(vim.api.nvim_win_get_cursor(0))
  local number = state_of(buf).asked
  local _, id = client_of.call(client, "request", "textDocument/inlineCompletion", params, function(err, result)
    receive(buf, number, err, result, encoding, row - 1, col)
  end, buf)
  state_of(buf).request = id
end

local function typed(buf)
  -- Typing along keeps the ghost where it belongs; anything else removes it at once.
  if not draw(buf) then
    state_of(buf).suggestions = {}
  end
  state_of(buf).step = nil
  if not config.values.automatic or not require("atlasd").enabled then
    return
  end
  local state = state_of(buf)
  cancel(buf)
  state.timer = vim.uv.new_timer()
  state.timer:start(config.values.debounce, 0, vim.schedule_wrap(function()
    if vim.api.nvim_buf_is_valid(buf) and vim.api.nvim_get_current_buf() == buf then
      M.request(buf, false)
    end
  end))
end

---@param buf integer
function M.attach(buf)
  local group = vim.api.nvim_create_augroup("atlasd.ghost." .. buf, { clear = true })
  local function on(events, callback)
    vim.api.nvim_create_autocmd(events, { group = group, buffer = buf, callback = callback })
  end
  on({ "InsertEnter", "CursorMovedI", "TextChangedP" }, function()
    typed(buf)
  end)
  on({ "LspAttach" }, function(event)
    -- Who types while the bridge still starts would get nothing before the next key.
    local client = vim.lsp.get_client_by_id(event.data.client_id)
    if client and client.name == "atlasd" and inserting() then
      typed(buf)
    end
  end)
  on({ "CompleteChanged" }, function()
    clear(buf)
  end)
  on({ "InsertLeave", "BufLeave" }, function()
    M.dismiss(buf)
  end)
  on({ "BufUnload" }, function()
    cancel(buf)
    states[buf] = nil
  end)
end

function M.detach(buf)
  pcall(vim.api.nvim_del_augroup_by_name, "atlasd.ghost." .. buf)
  M.dismiss(buf)
end

---@return boolean
function M.visible(buf)
  local suggestion = current(buf)
  local rest = suggestion and insert.rest(buf, suggestion)
  return rest ~= nil and rest ~= "" and vim.fn.pumvisible() == 0
end

---@param what "all"|"word"|"line"
function M.accept(buf, what)
  local suggestion = current(buf)
  if not suggestion then
    return
  end
  clear(buf)
  if insert.accept(buf, suggestion, what) == "" then
    state_of(buf).suggestions = {}
  else
    draw(buf)
  end
end

--- Show another suggestion; asks for some when there is none or only the one that came by itself.
function M.select(buf, count)
  local state = state_of(buf)
  if #state.suggestions < 2 then
    state.step = #state.suggestions == 1 and count or nil
    M.request(buf, true)
    return
  end
  state.index = (state.index - 1 + count) % #state.suggestions + 1
  draw(buf)
end

function M.dismiss(buf)
  cancel(buf)
  clear(buf)
  local suggestion = current(buf)
  if suggestion then
    insert.tell(buf, suggestion, "atlasd/didDismissCompletion")
  end
  state_of(buf).suggestions = {}
end

return M
