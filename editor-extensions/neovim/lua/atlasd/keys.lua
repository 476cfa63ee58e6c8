--- Insert-mode keys that atlasd shares with whoever had them before.
local M = {}

local kept = {} ---@type table<string, string> name under which a key's former mapping lives on
local count = 0

---@param key string
local function mapping_of(key)
  local raw = vim.keycode(key)
  -- Mappings of single buffers go before atlasd's anyway.
  for _, map in ipairs(vim.api.nvim_get_keymap("i")) do
    if map.lhsraw == raw or map.lhsrawalt == raw then
      return map
    end
  end
end

--- Give a key's mapping another name, so that it can be typed when atlasd has the key. It keeps all
--- that it was: an expression, a function, a script's own.
---@param key string
local function keep(key)
  local map = mapping_of(key)
  if not map or (map.desc or ""):find("^atlasd") then
    return
  end
  count = count + 1
  kept[key] = ("<Plug>(atlasd-before-%d)"):format(count)
  if map.noremap == 0 and vim.startswith(map.rhs or "", key) then
    -- It stood for itself there, and must not lead to atlasd's.
    map.noremap = 1
  end
  map.lhs, map.lhsraw, map.lhsrawalt = kept[key], vim.keycode(kept[key]), nil
  vim.fn.mapset("i", false, map)
end

--- Map a key to `run` while `wanted` says so; otherwise it does what it did before. Both in their
--- turn, whatever was typed behind the key meanwhile.
---@param key string
---@param wanted fun(): boolean
---@param run string Lua
---@param about string
function M.share(key, wanted, run, about)
  keep(key)
  vim.keymap.set("i", key, function()
    return vim.keycode(wanted() and ("<Cmd>lua %s<CR>"):format(run) or kept[key] or key)
  end, { expr = true, replace_keycodes = false, desc = "atlasd: " .. about })
end

return M
