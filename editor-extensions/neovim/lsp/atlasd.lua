--- For those who use vim.lsp.enable("atlasd") and vim.lsp.inline_completion without the plugin (0.12).
return {
  cmd = { "atlasd-lsp" },
  root_markers = { ".git" },
  init_options = { editor = "neovim" },
}
