--- Suggestions through Neovim's own vim.lsp.inline_completion (0.12 and newer).
local client_of = require("atlasd.client")
local insert = require("atlasd.insert")
local M = {}

local inline = vim.lsp.inline_completion
local namespace = vim.api.nvim_create_namespace("nvim.lsp.inline_completion")

function M.attach(buf)
  inline.enable(true, { bufnr = buf })
end

function M.detach(buf)
  inline.enable(false, { bufnr = buf })
end

--- Whether ghost text is on screen.
---@return boolean
function M.visible(buf)
  return #vim.api.nvim_buf_get_extmarks(buf, namespace, 0, -1, { limit = 1 }) > 0
end

--- Accept all, a word or a line of the suggestion on screen. Neovim itself would replace the range of
--- the request, and what was typed since would survive behind the insertion (neovim#36529).
---@param what "all"|"word"|"line"
function M.accept(buf, what)
  local done = not inline.get({
    bufnr = buf,
    on_accept = function(item)
      local row, col, _, end_col = item.range:to_extmark()
      insert.accept(buf, {
        text = type(item.insert_text) == "table" and item.insert_text.value or item.insert_text,
        row = row,
        col = col,
        replace = math.max(0, end_col - col),
        item = { insertText = item.insert_text, command = item.command },
      }, what)
      return nil
    end,
  })
  -- Neovim gives the item a moment later; what was typed behind the key has to come after it.
  vim.schedule(function()
    done = true
  end)
  vim.wait(200, function()
    return done
  end, 1)
end

local asked = {} ---@type table<integer, string> where others were asked for last

--- Step on once the next answer has been taken in.
local function select_later(buf, count)
  vim.api.nvim_create_autocmd("LspRequest", {
    buffer = buf,
    callback = function(event)
      local request = event.data.request
      if request.method ~= "textDocument/inlineCompletion" or request.type ~= "complete" then
        return false
      end
      vim.defer_fn(function()
        if M.visible(buf) then
          inline.select({ bufnr = buf, count = count })
        end
      end, 20)
      return true
    end,
  })
end

--- Show another suggestion. The first time at a place it asks for several, for Neovim itself asks for
--- one; Neovim has no function for asking: it asks when the cursor moves.
function M.select(buf, count)
  local row, col = unpack(vim.api.nvim_win_get_cursor(0))
  local place = ("%d %d %d"):format(vim.api.nvim_buf_get_changedtick(buf), row, col)
  if asked[buf] == place and M.visible(buf) then
    inline.select({ bufnr = buf, count = count })
    return
  end
  asked[buf] = place
  if M.visible(buf) then
    select_later(buf, count)
  end
  local client = client_of.of(buf)
  if client then
    client_of.call(client, "notify", "atlasd/wantOtherCompletions", { textDocument = { uri = vim.uri_from_bufnr(buf) } })
  end
  vim.api.nvim_exec_autocmds("CursorMovedI", { buffer = buf, modeline = false })
end

function M.dismiss(buf)
  -- Its item is given to whoever would accept it, a moment later.
  inline.get({
    bufnr = buf,
    on_accept = function(item)
      insert.tell(buf, { item = { insertText = item.insert_text, command = item.command } }, "atlasd/didDismissCompletion")
      return nil
    end,
  })
  vim.schedule(function()
    inline.enable(false, { bufnr = buf })
    inline.enable(true, { bufnr = buf })
  end)
end

return M
