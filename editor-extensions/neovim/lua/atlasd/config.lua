--- Settings, merged over these defaults by `require("atlasd").setup{}`. None is needed.
local M = {}

---@class atlasd.Config
M.defaults = {
  --- Command that starts the bridge.
  cmd = { "atlasd-lsp" },
  --- Files or folders that mark a repository's root.
  root_markers = { ".git" },
  --- Filetypes to complete in; nil for all. Special buffers (prompt, terminal, …) are always left out.
  filetypes = nil,
  --- Filetypes never completed in.
  filetypes_off = { "gitcommit", "TelescopePrompt", "help" },
  --- Suggest while typing; false: only when asked for by `next()`.
  automatic = true,
  --- Milliseconds of quiet before asking; the daemon drops overtaken requests, so it can be short.
  --- Neovim's own inline completion has its own, of 200.
  debounce = 30,
  --- Use Neovim's own vim.lsp.inline_completion where it exists (0.12) and suggestions are automatic;
  --- false: atlasd's ghost text.
  native = true,
  --- Start the daemon when none runs.
  start_daemon = true,
  --- Index and learn from the workspace. A function gets the root and may refuse it.
  ---@type boolean|fun(root: string): boolean
  trusted = true,
  --- Insert-mode keys; false for none. <Tab> falls back to what it did before.
  keymaps = {
    accept = "<Tab>",
    accept_word = "<M-Right>",
    accept_line = "<M-Down>",
    next = "<M-]>",
    previous = "<M-[>",
    dismiss = "<C-]>",
  },
}

M.values = vim.deepcopy(M.defaults)

--- Merge a user's settings; unknown keys are named so that a typing mistake does not pass silently.
---@param user table?
function M.merge(user)
  user = user or {}
  for key in pairs(user) do
    if M.defaults[key] == nil and key ~= "filetypes" then
      vim.notify(("atlasd: unknown setting %q"):format(key), vim.log.levels.WARN)
    end
  end
  M.values = vim.tbl_deep_extend("force", vim.deepcopy(M.defaults), user)
  return M.values
end

return M
