--- The language client: one per root, attached to the buffers that want completions.
local config = require("atlasd.config")
local M = {}

--- The atlasd client of a buffer.
---@param buf integer?
---@return vim.lsp.Client?
function M.of(buf)
  return vim.lsp.get_clients({ name = "atlasd", bufnr = buf or 0 })[1]
end

--- Call a client's method in either calling convention (0.11 made them methods).
---@param client vim.lsp.Client
---@param method "request"|"request_sync"|"notify"|"cancel_request"
function M.call(client, method, ...)
  if vim.fn.has("nvim-0.11") == 1 then
    return client[method](client, ...)
  end
  return client[method](...)
end

--- Whether completions are wanted in a buffer at all.
---@param buf integer
function M.wanted(buf)
  local values, filetype = config.values, vim.bo[buf].filetype
  if vim.bo[buf].buftype ~= "" or not vim.bo[buf].modifiable then
    return false
  end
  if vim.tbl_contains(values.filetypes_off, filetype) then
    return false
  end
  return values.filetypes == nil or vim.tbl_contains(values.filetypes, filetype)
end

---@param root string?
local function trusted(root)
  local value = config.values.trusted
  if type(value) == "function" then
    return root ~= nil and value(root) == true
  end
  return value
end

--- The configuration `vim.lsp.start` takes.
---@param root string?
function M.lsp_config(root)
  local capabilities = vim.lsp.protocol.make_client_capabilities()
  capabilities.textDocument.inlineCompletion = { dynamicRegistration = false }
  return {
    name = "atlasd",
    cmd = config.values.cmd,
    root_dir = root,
    capabilities = capabilities,
    init_options = {
      editor = "neovim",
      trusted = trusted(root),
      startDaemon = config.values.start_daemon,
      reportsShown = not require("atlasd").uses_native(),
    },
    handlers = {
      ["atlasd/chatText"] = function(_, params)
        require("atlasd.chat").on_text(params)
      end,
    },
  }
end

--- Whether another buffer without a name is attached: they all have the same URI, and the bridge would
--- take what is typed in one for the other's.
---@param buf integer
local function another_nameless(buf)
  return vim.iter(vim.lsp.get_clients({ name = "atlasd" })):any(function(client)
    return vim.iter(pairs(client.attached_buffers)):any(function(other)
      return other ~= buf and vim.api.nvim_buf_is_valid(other) and vim.api.nvim_buf_get_name(other) == ""
    end)
  end)
end

--- Attach a buffer, starting the client of its root if there is none.
---@param buf integer
---@return integer? client_id
function M.attach(buf)
  if not M.wanted(buf) then
    return
  end
  local name = vim.api.nvim_buf_get_name(buf)
  if name == "" and another_nameless(buf) then
    return
  end
  local start = name ~= "" and vim.fs.dirname(name) or vim.uv.cwd()
  local marker = vim.fs.find(config.values.root_markers, { path = start, upward = true })[1]
  local root = marker and vim.fs.dirname(marker) or nil
  return vim.lsp.start(M.lsp_config(root), { bufnr = buf })
end

--- Run one of the bridge's commands; `done` gets error and result.
---@param command string
---@param arguments any[]?
---@param done fun(err: lsp.ResponseError?, result: any)?
function M.execute(command, arguments, done)
  local client = M.of(0) or vim.lsp.get_clients({ name = "atlasd" })[1]
  if not client then
    local starting = #vim.lsp.get_clients({ name = "atlasd", _uninitialized = true }) > 0
    vim.notify(
      starting and "atlasd: the bridge is starting; ask again in a moment"
        or "atlasd: no bridge is attached to this buffer; :checkhealth atlasd says why",
      vim.log.levels.WARN
    )
    return
  end
  local params = { command = command, arguments = arguments or {} }
  M.call(client, "request", "workspace/executeCommand", params, function(err, result)
    if done then
      done(err, result)
    elseif err then
      vim.notify("atlasd: " .. err.message, vim.log.levels.ERROR)
    end
  end)
end

return M
