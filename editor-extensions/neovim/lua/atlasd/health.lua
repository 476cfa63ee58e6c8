--- `:checkhealth atlasd`
local client = require("atlasd.client")
local config = require("atlasd.config")
local M = {}

local health = vim.health

local function check_neovim()
  health.start("Neovim")
  if vim.fn.has("nvim-0.10") == 0 then
    health.error("Neovim 0.10 or newer is needed")
  elseif require("atlasd").uses_native() then
    health.ok("suggestions are drawn by vim.lsp.inline_completion")
  else
    health.ok("suggestions are drawn by atlasd's own ghost text")
  end
end

local function check_bridge()
  health.start("bridge")
  local command = config.values.cmd[1]
  if vim.fn.executable(command) == 0 then
    health.error(command .. " is not executable", {
      "install atlasd, or give its place: require('atlasd').setup{ cmd = { '/path/to/.venv/bin/atlasd-lsp' } }",
    })
    return
  end
  health.ok(vim.trim(vim.fn.system({ command, "--version" })))
  local clients = vim.lsp.get_clients({ name = "atlasd" })
  if #clients == 0 then
    health.warn("no buffer is attached", { "open a file; see :help atlasd-setup" })
  end
  return clients[1]
end

local function check_daemon(lsp)
  health.start("daemon")
  local params = { command = "atlasd.status", arguments = {} }
  local answer = client.call(lsp, "request_sync", "workspace/executeCommand", params, 3000)
  local status = answer and answer.result
  if not status then
    health.error("the bridge did not answer within 3 s")
  elseif status.state == "ready" then
    health.ok(("ready: %s, version %s"):format(status.model and status.model.model or "?", status.version or "?"))
  elseif status.state == "failed" or status.state == "stopped" then
    health.error(("the daemon is %s: %s"):format(status.state, status.error or ""), { "run: atlasd doctor" })
  else
    health.info("the daemon is " .. status.state)
  end
end

local function check_keys()
  health.start("keys")
  for name, key in pairs(config.values.keymaps or {}) do
    local map = key and vim.fn.maparg(key, "i", false, true)
    if key and not (map.desc or ""):find("^atlasd") then
      health.warn(("%s (%s) belongs to something else: %s"):format(key, name, map.desc or map.rhs or "?"))
    end
  end
  health.ok("checked")
end

function M.check()
  check_neovim()
  local lsp = check_bridge()
  if lsp then
    check_daemon(lsp)
  end
  check_keys()
end

return M
