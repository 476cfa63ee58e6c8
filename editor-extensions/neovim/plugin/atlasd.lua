if vim.g.loaded_atlasd then
  return
end
vim.g.loaded_atlasd = true

--- Run one of the bridge's commands and show what it answers.
local function show(command)
  return function()
    require("atlasd.client").execute(command, {}, function(err, result)
      vim.notify(err and err.message or vim.inspect(result))
    end)
  end
end

local actions = {
  toggle = function()
    require("atlasd").toggle()
  end,
  status = show("atlasd.status"),
  pause = function()
    require("atlasd.client").execute("atlasd.pause")
  end,
  resume = function()
    require("atlasd.client").execute("atlasd.resume")
  end,
  why = show("atlasd.why"),
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
