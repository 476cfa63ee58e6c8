if vim.g.loaded_atlasd then
  return
end
vim.g.loaded_atlasd = true

--- Show what `atlasd status` or `atlasd why` says in a window of its own, which `q` closes.
local function tell(what)
  return function()
    require("atlasd.client").execute("atlasd.tell", { what }, function(err, result)
      if err then
        vim.notify("atlasd: " .. err.message, vim.log.levels.ERROR)
        return
      end
      local lines = vim.split(result, "\n", { plain = true })
      vim.cmd(("botright %dnew"):format(math.min(#lines, math.floor(vim.o.lines * 0.6))))
      local buf = vim.api.nvim_get_current_buf()
      vim.bo[buf].buftype, vim.bo[buf].bufhidden = "nofile", "wipe"
      vim.api.nvim_buf_set_lines(buf, 0, -1, false, lines)
      vim.bo[buf].modifiable = false
      vim.keymap.set("n", "q", "<Cmd>close<CR>", { buffer = buf, desc = "atlasd: close" })
    end)
  end
end

local actions = {
  toggle = function()
    require("atlasd").toggle()
  end,
  status = tell("status"),
  pause = function()
    require("atlasd.client").execute("atlasd.pause")
  end,
  resume = function()
    require("atlasd.client").execute("atlasd.resume")
  end,
  why = tell("why"),
  chat = function(options)
    local prompt = table.concat(vim.list_slice(options.fargs, 2), " ")
    require("atlasd.chat").ask(prompt, options.range > 0 and options.line1 or 0, options.line2)
  end,
}

vim.api.nvim_create_user_command("Atlasd", function(options)
  local action = actions[options.fargs[1]]
  if action then
    action(options)
  else
    local names = vim.tbl_keys(actions)
    table.sort(names)
    vim.notify("Atlasd: one of " .. table.concat(names, ", "), vim.log.levels.ERROR)
  end
end, {
  nargs = "+",
  range = true,
  desc = "atlasd: toggle, status, pause, resume, why, chat",
  complete = function(lead)
    return vim.tbl_filter(function(name)
      return vim.startswith(name, lead)
    end, vim.tbl_keys(actions))
  end,
})

for name, about in pairs({
  accept = "accept the suggestion",
  accept_word = "accept a word",
  accept_line = "accept a line",
  next = "next suggestion",
  previous = "previous suggestion",
  dismiss = "dismiss the suggestion",
}) do
  vim.keymap.set("i", ("<Plug>(atlasd-%s)"):format(name:gsub("_", "-")), function()
    require("atlasd")[name]()
  end, { desc = "atlasd: " .. about })
end
