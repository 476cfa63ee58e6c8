--- The daemon's state for statuslines, asked for at most every two seconds and never waited for.
local client = require("atlasd.client")
local M = { last = nil, asked = 0 }

local MARKS = { ready = "●", loading = "◌", paused = "‖", stopped = "○", failed = "✗" }

local function refresh()
  local now = vim.uv.now()
  if now - M.asked < 2000 or not client.of(0) then
    return
  end
  M.asked = now
  client.execute("atlasd.status", {}, function(_, result)
    M.last = result
    vim.schedule(function()
      vim.cmd.redrawstatus()
    end)
  end)
end

--- For example `● atlasd`; empty in buffers without completions.
---@return string
function M.text()
  if not client.of(0) then
    return ""
  end
  if not require("atlasd").enabled then
    return "○ atlasd off"
  end
  refresh()
  local state = M.last and M.last.state or "stopped"
  local silent = state == "ready" and (M.last.engine_silent_s or 0) >= 5
  local text = (silent and "?" or MARKS[state] or "?") .. " atlasd"
  if state == "loading" and M.last.fraction then
    text = ("%s %d%%%%"):format(text, math.floor(100 * M.last.fraction))
  end
  return text
end

return M
