--- Suggestions through Neovim's own vim.lsp.inline_completion (0.12 and newer).
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
  inline.get({
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
end

--- Show another suggestion; asks for one when none is on screen.
function M.select(buf, count)
  if M.visible(buf) then
    inline.select({ bufnr = buf, count = count })
  else
    -- Neovim has no function for it: it asks when the cursor moves.
    vim.api.nvim_exec_autocmds("CursorMovedI", { buffer = buf, modeline = false })
  end
end

function M.dismiss(buf)
  inline.enable(false, { bufnr = buf })
  inline.enable(true, { bufnr = buf })
end

return M
