local tenants = {
@TENANTS@
}
core.register_action("resolve", { "http-req" }, function(txn)
  local schema = tenants[txn.sf:req_hdr("x-tenant-id")]
  if schema then txn:set_var("txn.schema", schema) end
end)
