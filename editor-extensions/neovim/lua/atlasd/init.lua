--- atlasd in Neovim: exact completions from the daemon on your own machine.
local client = require("atlasd.client")
local config = require("atlasd.config")
local shared = require("atlasd.keys")
local M = { enabled = true }

--- Whether suggestions are drawn by vim.lsp.inline_completion rather than by atlasd; it always asks
--- while somebody types.
function M.uses_native()
  return config.values.native and config.values.automatic and vim.lsp.inline_completion ~= nil
end

local function view()
  return require(M.uses_native() and "atlasd.native" or "atlasd.ghost")
end

local function attach(buf)
  if M.enabled and vim.api.nvim_buf_is_valid(buf) and client.attach(buf) then
    view().attach(buf)
  end
end

local function map_keys()
  local keys = config.values.keymaps or {}
  for name, about in pairs({
    accept = "accept the suggestion",
    accept_word = "accept a word",
    accept_line = "accept a line",
  }) do
    if keys[name] then
      shared.share(keys[name], M.visible, ("require('atlasd').%s()"):format(name), about)
    end
  end
  for name, about in pairs({
    next = "next suggestion",
    previous = "previous suggestion",
    dismiss = "dismiss the suggestion",
  }) do
    if keys[name] then
      vim.keymap.set("i", keys[name], M[name], { desc = "atlasd: " .. about })
    end
  end
end

---@param user table? see lua/atlasd/config.lua
function M.setup(user)
  config.merge(user)
  vim.api.nvim_set_hl(0, "AtlasdGhost", { link = "Comment", default = true })
  local group = vim.api.nvim_create_augroup("atlasd", { clear = true })
  vim.api.nvim_create_autocmd({ "FileType", "BufEnter" }, {
    group = group,
    callback = function(event)
      -- A buffer is entered before it is told what it is: scratch, a terminal, the command-line window.
      vim.schedule(function()
        attach(event.buf)
      end)
    end,
  })
  map_keys()
  for _, buf in ipairs(vim.api.nvim_list_bufs()) do
    if vim.api.nvim_buf_is_loaded(buf) then
      attach(buf)
    end
  end
end

function M.accept()
  view().accept(vim.api.nvim_get_current_buf(), "all")
end

function M.accept_word()
  view().accept(vim.api.nvim_get_current_buf(), "word")
end

function M.accept_line()
  view().accept(vim.api.nvim_get_current_buf(), "line")
end

function M.next()
  view().select(vim.api.nvim_get_current_buf(), 1)
end

function M.previous()
  view().select(vim.api.nvim_get_current_buf(), -1)
end

function M.dismiss()
  view().dismiss(vim.api.nvim_get_current_buf())
end

--- Whether a suggestion is on screen in the current buffer.
function M.visible()
  return view().visible(vim.api.nvim_get_current_buf())
end

--- Switch suggestions off and on again in this Neovim.
function M.toggle()
  M.enabled = not M.enabled
  for _, buf in ipairs(vim.api.nvim_list_bufs()) do
    if vim.api.nvim_buf_is_loaded(buf) then
      if M.enabled then
        attach(buf)
      else
        view().detach(buf)
      end
    end
  end
  vim.notify("atlasd: " .. (M.enabled and "on" or "off"))
end

--- For a statusline: `%{%v:lua.require'atlasd'.status()%}`.
---@return string
function M.status()
  return require("atlasd.status").text()
end

return M
